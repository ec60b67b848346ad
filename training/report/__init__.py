"""A detector on one page: figures, pictures, and why to believe them."""
