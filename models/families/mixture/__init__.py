"""Mixtures: the probabilities of several models, combined token by token."""
