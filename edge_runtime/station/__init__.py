"""The station: the loop, what it decides by, and how it starts, tells how it is, and ends."""
