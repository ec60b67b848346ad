"""What the station sees of the door's process in memory that both have: whether it stands still."""

import struct

CLOCK = struct.Struct("=qqq")
"""In ns: when it last came round, when it last came back from standing still, and for how long it had."""
AWAY_S = 0.25
"""A process that came round so much later than it had meant stood still: what it hands on then may have waited for as long."""
