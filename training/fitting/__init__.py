"""How a detector is taught: options, heads fitted on features, odd images set apart, and the threshold."""
