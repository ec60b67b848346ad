"""Receivers of decisions: the journal and the publisher in the loop, the archive and the preview beside it."""
