"""Corpus metrics for TFX's Evaluator, and the gate on them."""
