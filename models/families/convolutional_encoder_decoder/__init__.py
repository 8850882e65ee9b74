"""Convolutional networks that read a source and write a target, with attention."""
