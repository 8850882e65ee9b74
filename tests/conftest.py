"""What every test needs before TensorFlow is imported."""

from __future__ import annotations

import os
import tempfile

# Read by TensorFlow when it is imported: warnings and errors only.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

# Keras reads the user's ~/.keras/keras.json otherwise, whose settings change results.
_keras_home = tempfile.TemporaryDirectory(prefix="langzoo-tests-keras-")
os.environ["KERAS_HOME"] = _keras_home.name

import langzoo  # noqa: E402, F401  (it sets what Keras and TensorFlow read)
