"""Pictures that are made: variations of good parts, and painted defects."""
