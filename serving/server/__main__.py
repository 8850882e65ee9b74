"""Runs the model server: `python -m langzoo.serving.server`."""

from __future__ import annotations

from .command import run

if __name__ == "__main__":
    run()
