"""The served graph: from strings to strings, by ops that stock Serving links."""
