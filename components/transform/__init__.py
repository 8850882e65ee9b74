"""TFX's Transform, given a tokenizer."""
