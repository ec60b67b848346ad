"""From a fitted detector to a bundle that a device can trust: convert, quantize, compare, pack."""
