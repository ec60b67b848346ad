"""Data sets: which images there are, what they are to each other, and whether they can be used."""
