"""Weights that were made elsewhere."""
