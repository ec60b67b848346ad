"""Teaching: good photographs in, a calibrated and honestly evaluated detector out. Needs the `train` extra."""
