"""Logs for TensorBoard: event files, as its scalars, text and graphs dashboards read.

`tf.summary.scalar`, and Keras's callback with it, need the package `tensorboard`, which
TensorFlow does not bring; the format is TensorFlow's own. An event here has a time that
is given, so a log that is written anew is the same log.

References:
    - https://github.com/tensorflow/tensorboard/blob/master/tensorboard/data_compat.py
"""

from __future__ import annotations

import os
import socket
import time
from typing import Any

import tensorflow as tf

_VERSION = "brain.Event:2"
_TENSOR = 2  # `DataClass` of tensorflow/core/framework/summary.proto


class EventFile:
    """A log that takes the place of those that a folder has.

    Args:
        folder: What TensorBoard calls a run.
    """

    def __init__(self, folder: str) -> None:
        tf.io.gfile.makedirs(folder)
        for path in tf.io.gfile.glob(os.path.join(folder, "events.out.tfevents.*")):
            tf.io.gfile.remove(path)
        name = f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}"
        self._writer = tf.io.TFRecordWriter(os.path.join(folder, name))
        self._write(file_version=_VERSION)

    def scalars(self, values: dict[str, float], *, step: int, seconds: float) -> None:
        """Adds a point to the curve of each name; `seconds` are of the Unix epoch."""
        content = [
            tf.compat.v1.Summary.Value(tag=name, simple_value=value)
            for name, value in values.items()
        ]
        summary = tf.compat.v1.Summary(value=content)
        self._write(summary=summary, step=step, wall_time=seconds)

    def text(self, name: str, text: str, *, step: int, seconds: float) -> None:
        """Adds a text, shown as it is: four blanks keep it from being Markdown."""
        lines = "\n".join(f"    {line}" for line in text.split("\n"))
        metadata = tf.compat.v1.SummaryMetadata(data_class=_TENSOR)
        metadata.plugin_data.plugin_name = "text"
        content = tf.compat.v1.Summary.Value(
            tag=name, metadata=metadata, tensor=tf.make_tensor_proto([lines])
        )
        summary = tf.compat.v1.Summary(value=[content])
        self._write(summary=summary, step=step, wall_time=seconds)

    def graph(self, graph: tf.Graph) -> None:
        """Adds a graph."""
        self._write(graph_def=graph.as_graph_def(add_shapes=True).SerializeToString())

    def flush(self) -> None:
        """Shows TensorBoard what has been added."""
        self._writer.flush()

    def close(self) -> None:
        """Ends the file."""
        self._writer.close()

    def _write(self, **fields: Any) -> None:
        event = tf.compat.v1.Event(**{"wall_time": time.time(), **fields})
        self._writer.write(event.SerializeToString())
