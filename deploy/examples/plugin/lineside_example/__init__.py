"""A source, a sink and a method for Lineside, from outside."""
