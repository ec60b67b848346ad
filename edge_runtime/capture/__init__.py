"""Which picture belongs to which trigger."""
