"""Transformers that see the whole text: the family `bert`."""
