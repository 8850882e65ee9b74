"""What is measured of a model: sums over a corpus, by slice, and what is no sum."""
