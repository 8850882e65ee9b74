"""Recurrent networks: simple, GRU, LSTM."""
