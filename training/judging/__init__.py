"""How a detector is judged: its threshold, what it rests on, and whether it may be released."""
