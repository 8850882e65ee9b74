"""What a process may leave out that is for large work, as tests have little of it."""

from __future__ import annotations

import contextlib

import tensorflow as tf
from langzoo.components import large_buffers
from tensorflow.python.util import tf_stack


def hurry() -> None:
    """Graphs of this process, which run once or twice, are made and run as they are.

    What servers in processes of their own run is still rewritten, and what sessions do
    that are given a configuration. Nor is memory given back after each executor: that
    is for documents of megabytes, which its own tests read in processes of their own.
    """
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    # An operation remembers the stack that made it, which in a test is a deep one: to
    # walk them takes a sixth of the time.
    stack = tf_stack.extract_stack()
    tf_stack.extract_stack = lambda stacklevel=1: stack
    # Each looks for garbage among all that TFX's modules hold, for half a second.
    large_buffers._nothing_lasting = contextlib.nullcontext
    large_buffers.trim = lambda: None
