"""`lineside-train`: its verbs, and what they share on a terminal."""
