"""What stands in for a factory: PLCs that play a line over any of the four protocols, and judge what a station answers."""
