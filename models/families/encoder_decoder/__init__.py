"""Transformers that read a source and write a target: the family `encoder_decoder`."""
