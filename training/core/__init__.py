"""What every room of teaching and exporting shares: places that are written."""
