"""How documents become the rows that a model is trained on."""
