"""The families: architectures, each a folder with its record."""
