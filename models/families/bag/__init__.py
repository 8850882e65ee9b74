"""Bags of words and n-grams."""
