"""A bundle and what runs it: manifest, signature, preprocessing, inference, regions. Training evaluates with this very code."""
