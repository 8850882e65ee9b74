"""Why a model says what it says, and pages that show it."""

from . import pages

__all__ = ["pages"]
