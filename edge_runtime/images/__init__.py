"""Pictures and masks in files: which are read, what their names say, and how they are read."""
