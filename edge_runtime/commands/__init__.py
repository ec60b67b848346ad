"""The verbs of `lineside` that look, try and tell: a file each."""
