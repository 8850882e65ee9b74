"""Tuner: a search for hyperparameters."""
