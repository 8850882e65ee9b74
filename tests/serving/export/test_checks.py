"""What TensorFlow Serving could not run is found when it is exported."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_text
from langzoo.serving.export.checks import ExportError, check_ops, check_signatures
from langzoo.serving.export.stock_ops import STOCK_OPS, TEXT_OPS
from tensorflow.python.framework import op_def_registry

TEXT = [tf.TensorSpec([None], tf.string, "text")]


def lengths(text: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.strings.length(text), tf.float32)


def save(
    directory: Path, function: Callable[[tf.Tensor], tf.Tensor], **tracked: Any
) -> Path:
    """A SavedModel whose signature `harmless` is fine and `suspect` is `function`."""
    module = tf.Module()
    for name, value in tracked.items():
        setattr(module, name, value)

    @tf.function(input_signature=TEXT)
    def suspect(text: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"value": function(text)}

    @tf.function(input_signature=TEXT)
    def harmless(text: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"value": lengths(text)}

    signatures = {"suspect": suspect, "harmless": harmless}
    tf.saved_model.save(module, str(directory), signatures=signatures)
    return directory


def test_core_and_text_ops_pass(tmp_path):
    tokenizer = tensorflow_text.WhitespaceTokenizer()

    def count_words(text: tf.Tensor) -> tf.Tensor:
        return tf.cast(tokenizer.tokenize(text).row_lengths(), tf.float32)

    directory = save(tmp_path / "1", count_words)
    check_ops(directory)
    check_signatures(directory)


def test_a_python_function_is_named_with_its_signature(tmp_path):
    def in_python(text: tf.Tensor) -> tf.Tensor:
        # Inside a loop, so that the op stands in a function that a function calls.
        return tf.map_fn(
            lambda item: tf.numpy_function(np.float32, [item], tf.float32),
            lengths(text),
        )

    directory = save(tmp_path / "1", in_python)
    with pytest.raises(ExportError, match=r"PyFunc.*used by signature suspect:"):
        check_ops(directory)


def test_an_op_that_serving_does_not_link_is_named(tmp_path):
    def update(text: tf.Tensor) -> tf.Tensor:
        # Keras writes it with an op of XLA's, which TensorFlow's wheel can run.
        return keras.ops.slice_update(lengths(text), [0], tf.zeros([1]))

    with pytest.raises(ExportError, match="op XlaDynamicUpdateSlice"):
        check_ops(save(tmp_path / "1", update))


def test_a_function_compiled_by_xla_is_refused(tmp_path):
    compiled = tf.function(lambda value: value + 1, jit_compile=True)
    directory = save(tmp_path / "1", lambda text: compiled(lengths(text)))
    with pytest.raises(ExportError, match=r"_XlaMustCompile.*suspect"):
        check_ops(directory)


def test_a_variable_that_a_session_does_not_find_is_refused(tmp_path):
    """Keras's variables load in TF2 and not in a session, so TF2 proves nothing."""
    layer = keras.layers.Dense(1)
    layer.build([None, 1])
    directory = save(
        tmp_path / "1",
        lambda text: layer(lengths(text)[:, None])[:, 0],
        variables_of_keras=layer.variables,
    )
    with pytest.raises(ExportError, match="signature suspect cannot be called"):
        check_signatures(directory)


def test_an_output_that_is_not_finite_is_refused(tmp_path):
    directory = save(tmp_path / "1", lambda text: tf.math.log(lengths(text) - 1))
    with pytest.raises(ExportError, match="output value is not finite"):
        check_signatures(directory)


def test_a_folder_without_a_saved_model_is_refused(tmp_path):
    with pytest.raises(ExportError, match="does not load"):
        check_signatures(tmp_path)


def test_the_list_of_ops_fits_the_installed_tensorflow():
    registered = {name for name in STOCK_OPS if op_def_registry.get(name)}
    assert registered == STOCK_OPS
    assert "SentencepieceTokenizeOp" in TEXT_OPS
    assert {"PyFunc", "EagerPyFunc", "XlaLaunch", "CudnnRNNV3"}.isdisjoint(STOCK_OPS)
