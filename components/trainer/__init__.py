"""Training and export of a model of the zoo."""
