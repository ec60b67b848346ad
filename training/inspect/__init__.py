"""What pictures tell before anything is taught: how parts lie, and what size of input and which method follow from it."""
