"""Runs the model server as `tensorflow_model_server` is run; see `command.run`."""

from __future__ import annotations

from .command import run

if __name__ == "__main__":
    run(stock=True)
