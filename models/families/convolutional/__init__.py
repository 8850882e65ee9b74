"""Gated convolutional networks and temporal convolutional networks."""
