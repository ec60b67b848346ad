"""Where good ends: rules for thresholds, and the statistics that they rest on."""
