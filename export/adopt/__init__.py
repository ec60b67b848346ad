"""Models that other tools exported, taken as they are."""
