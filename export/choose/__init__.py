"""Several methods on one product, side by side, and which one to take."""
