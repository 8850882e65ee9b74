"""Examples of TensorFlow's, as evaluations and Classify are given them."""

from __future__ import annotations

from collections.abc import Iterable

import tensorflow as tf


def example(**features: Iterable[str | bytes]) -> bytes:
    """An Example with the values of each feature."""
    feature = {
        name: tf.train.Feature(
            bytes_list=tf.train.BytesList(value=map(tf.compat.as_bytes, values))
        )
        for name, values in features.items()
    }
    proto = tf.train.Example(features=tf.train.Features(feature=feature))
    return proto.SerializeToString()
