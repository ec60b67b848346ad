"""Who may say what to a station, and how much."""
