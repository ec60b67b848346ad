"""What a detector is worth: which good images are odd, whether it is fit for release, how far its line may stray."""
