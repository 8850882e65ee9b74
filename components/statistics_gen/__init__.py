"""Statistics of examples, within a bound of memory."""
