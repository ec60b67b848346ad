"""What every method stands on: backbones, heads that can be refitted, learning by steps, memory, and places that are written."""
