"""Learning of a tokenizer from the training split."""
