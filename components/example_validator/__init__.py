"""Validation of examples, which stops the run where data is lost."""
