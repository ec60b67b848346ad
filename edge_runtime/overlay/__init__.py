"""The operator's window: a process of its own that only subscribes. `paint` draws, `window` subscribes and shows."""
