"""What stands in for a factory: a PLC that plays a line (`plc`) and drawn parts with known defects (`line`)."""
