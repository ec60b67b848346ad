"""What a detector's scores are worth: where its threshold lies, what it does, and whether that is fit for release."""
