"""Export of a model to a SavedModel from strings to strings.

Every input and output has the batch as its first dimension, so that a server may join
requests. The defaults have one row and hold for every row of a request; a server that
joins requests of several rows each needs those inputs given.

`contract` says what each signature takes and gives. An export brings along a request
for each, which a server answers before it serves; see `warmup_requests`. Beside them
lies the tokenizer as Hugging Face reads it; see `models.tokenizers.hugging_face_files`.
"""

from __future__ import annotations

import json
import os
import uuid
from typing import Any

import tensorflow as tf

from ... import __version__
from ...models import references
from ...models.backbone import portable_graphs
from ...models.tasks import CAUSAL_LM
from ...models.tokenizers.hugging_face_files import hugging_face_files
from .checks import ExportError, check_export
from .contract import EXTRA_FOLDER, METADATA_FILE
from .contract import SIGNATURES as SIGNATURES_OF
from .signatures import SIGNATURES, Signatures
from .warmup_requests import write_warmup_requests

__all__ = ["ExportError", "export", "export_causal_lm", "read_metadata"]


def export_causal_lm(
    model: Any,
    directory: str | os.PathLike[str],
    *,
    stride: int | None = None,
    max_new_tokens: int | None = None,
    **options: Any,
) -> None:
    """Writes a `langzoo.models.CausalLM`; see `export`, and `signatures.causal_lm`."""
    export(model, directory, stride=stride, max_new_tokens=max_new_tokens, **options)


def export(
    model: Any,
    directory: str | os.PathLike[str],
    *,
    task: str = "causal_lm",
    **options: Any,
) -> None:
    """Writes `model` as a SavedModel that stock TensorFlow Serving hosts as it is.

    The export is written beside `directory`, checked (its ops, and every signature in
    a TF1 session as TensorFlow Serving runs it), and then renamed, so that nothing
    half-written or unfit is ever seen at `directory`.

    Args:
        model: a model of the task.
        directory: where the SavedModel will stand; must not exist, or be empty.
        task: what the model has learned, which says what its signatures are.
        options: of these signatures.

    Raises:
        ValueError: an option is out of its range.
        ExportError: `directory` is in use, or the export fails a check.
    """
    directory = os.fspath(directory).rstrip("/")
    if tf.io.gfile.exists(directory) and tf.io.gfile.listdir(directory):
        raise ExportError(f"{directory} is not empty")

    unfinished = f"{directory}.unfinished-{uuid.uuid4().hex}"
    try:
        with portable_graphs():
            served = references.load(SIGNATURES[task])(model, **options)
            served = served._replace(options={"task": task, **served.options})
            _save(model, served, unfinished)
        _name_methods(unfinished, task)
        write_warmup_requests(unfinished)
        check_export(unfinished)
        if tf.io.gfile.exists(directory):
            tf.io.gfile.rmtree(directory)
        tf.io.gfile.rename(unfinished, directory)
    finally:
        if tf.io.gfile.exists(unfinished):
            tf.io.gfile.rmtree(unfinished)


def read_metadata(directory: str | os.PathLike[str]) -> dict[str, Any]:
    """What `export` noted about the export in `directory`.

    Keys: `langzoo_version`, `task`, `model` (`class`, `backbone`, `config`,
    `parameters`), `context_length`, `vocabulary_size`, `signatures`, and the
    signatures' options: `stride`, `max_new_tokens`, `embed_pooling`, `embed_normalize`.
    """
    with tf.io.gfile.GFile(os.path.join(directory, METADATA_FILE)) as file:
        return json.load(file)


def task_of(directory: str | os.PathLike[str]) -> str:
    """What a model of this package's in `directory` has learned to do."""
    # Once there was one task only, and none was noted.
    noted = tf.io.gfile.exists(os.path.join(directory, METADATA_FILE))
    metadata = read_metadata(directory) if noted else {}
    return str(metadata.get("task", CAUSAL_LM.name))


def _save(model: Any, served: Signatures, directory: str) -> None:
    holder = tf.Module()
    holder.weights = served.variables
    holder.tokenizer = model.preprocessor.tokenizer
    options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
    tf.saved_model.save(holder, directory, signatures=served.functions, options=options)
    metadata = json.dumps(_metadata(model, served), indent=2, default=str)
    _write(directory, METADATA_FILE, metadata)
    files = hugging_face_files(holder.tokenizer, model.context_length)
    for name, content in files.items():
        _write(directory, f"{EXTRA_FOLDER}/{name}", content)


def _name_methods(directory: str, task: str) -> None:
    """Notes which signatures answer other methods than Predict: all that TF2 writes."""
    others = [it for it in SIGNATURES_OF[task] if it.method != "predict"]
    if not others:
        return
    updater = tf.compat.v1.saved_model.signature_def_utils.MethodNameUpdater(directory)
    for signature in others:
        method = f"tensorflow/serving/{signature.method}"
        updater.replace_method_name(signature.name, method)
    updater.save()


def _write(directory: str, name: str, content: str) -> None:
    path = os.path.join(directory, name)
    tf.io.gfile.makedirs(os.path.dirname(path))
    with tf.io.gfile.GFile(path, "w") as file:
        file.write(content)


def _metadata(model: Any, served: Signatures) -> dict[str, Any]:
    return {
        "langzoo_version": __version__,
        "model": {
            "class": type(model).__name__,
            "backbone": type(model.backbone).__name__,
            "config": model.backbone.get_config(),
            "parameters": model.count_params(),
        },
        "context_length": model.context_length,
        **served.options,
        "vocabulary_size": model.backbone.vocabulary_size,
        "signatures": sorted(served.functions),
    }
