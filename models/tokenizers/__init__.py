"""Tokenizers: text to ids and back, in Python and in the graph."""
