"""Runs the model server as `tensorflow_model_server` is run; see `command.main`."""

from __future__ import annotations

import sys

from .command import main

if __name__ == "__main__":
    sys.exit(main(stock=True))
