"""How a detector is taught."""
