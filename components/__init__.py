"""TFX components, and the functions that TFX calls by name."""
