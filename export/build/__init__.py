"""From a run to a bundle: convert, quantize, compare, judge, measure."""
