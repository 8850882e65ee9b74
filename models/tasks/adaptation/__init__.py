"""Models that adapt to a text while they score it, never before a token is scored."""
