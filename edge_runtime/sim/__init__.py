"""What stands in for a factory: PLCs that play a line over any protocol, and judge what a station answers."""
