"""Ingestion of text files into `tf.train.Example`s."""
