"""What a detector's scores are worth: how good it is, what its threshold does, and whether that is fit for release."""
