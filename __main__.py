"""`python -m langzoo`."""

from .cli import main

main()
