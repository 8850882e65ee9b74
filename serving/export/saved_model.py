"""Export of a causal language model to a SavedModel from strings to strings.

| signature | inputs | outputs |
|---|---|---|
| `serving_default` | `text` | `token`, `probability`: the ten likeliest next tokens |
| `score` | `text` | `nll` and `spelling_nll` (nats), `tokens`, `bytes`, `words` |
| `token_scores` | `text` | `token`, `log_probability` (nats), `length` |
| `token_alternatives` | `text` | those, and `top_token`, `top_log_probability`: the five likeliest at each place |
| `generate` | `prompt` and, with defaults, `max_new_tokens`, `temperature`, `top_k`, `top_p`, `repetition_penalty`, `presence_penalty`, `frequency_penalty`, `stop`, `seed`, `seed_offset` | `text`, `new_tokens`, `finish_reason`, `prompt_tokens`; of each new token `token`, `log_probability`, `top_token`, `top_log_probability` |
| `beam_search` | `prompt` and, with defaults, `max_new_tokens`, `num_beams`, `length_penalty`, `stop` | of four beams, best first: `text`, `log_probability`, `score`, `new_tokens`, `finish_reason` |
| `evaluate` | `examples` (serialized `tf.train.Example`) | as `score`, and more of each document to measure a model by: see `evaluation` |

`<pad>`, `<unk>` and `<s>` are never proposed: their logits are masked before the
softmax, so the probabilities of `serving_default` are those of real tokens and `</s>`.
`nll` counts `</s>`, and so does `tokens` of `score`. An unknown piece is the one token
`<unk>` in both, and in `token_scores`; `spelling_nll` is what its bytes cost on top of
that, by a fixed code (see `models.scoring.spelling_nll`), and 0 where nothing is unknown:
`nll + spelling_nll` is the length of a code of the text. The numbers of
`token_alternatives` are those of `token_scores`: of all tokens, of which it shows those
that may be proposed.

`generate` draws from the 256 likeliest tokens; a prompt keeps its last (context length -
`max_new_tokens`) tokens, and `prompt_tokens` says how many these are, `<s>` not counted.
No request gets more tokens than the export's cap, and a setting that means nothing (not
a number, out of range) is as good as none. The penalties are Hugging Face's (over prompt
and new tokens) and OpenAI's (over new tokens), and lower the logits before anything is
left out. `stop` has four strings a row, of any bytes, "" for none: the text ends before
the first that is complete (of several complete at one byte, the longest), whatever the
tokens are, and the row is written no further. `new_tokens` counts the tokens that `text`
has a part of, without the `</s>` that ended it; what is told of each token is "" or 0
behind that. `finish_reason` is `stop` (at `</s>` or a stop string) or `length`. A row's
text depends on its settings, its seed and its prompt, not on the rest of the batch. The
log-probabilities are the model's own, in nats, among what may be proposed: before
penalties, temperature and cuts. Who goes on piece by piece with one seed says in
`seed_offset` how many tokens of the continuation the prompt ends with: they count for
the penalties as new ones, and the pieces are those of one request (where the tokenizer
cuts the text into the tokens that were drawn).

`beam_search` keeps `num_beams` (at most four) continuations; see `beam_search`.
`log_probability` is the sum over the tokens, `</s>` and those of a stop string among
them, and `score` that over their number ** `length_penalty`. Where there are fewer beams
these are -inf, and the text "".

Every input and output has the batch as its first dimension, so that a server may join
requests. The defaults have one row and hold for every row of a request; a server that
joins requests of several rows each needs those inputs given.

The export brings along a request for each signature that a server answers before it
serves; see `warmup_requests`.
"""  # noqa: E501

from __future__ import annotations

import json
import os
from typing import Any

import tensorflow as tf

from ... import __version__
from ...models.families.recurrent.cudnn import without_cudnn
from .checks import ExportError, check_export
from .settings import ExportSettings
from .signatures import build_signatures
from .traced_model import TracedModel
from .warmup_requests import write_warmup_requests

__all__ = ["METADATA_FILE", "ExportError", "export_causal_lm", "read_metadata"]

METADATA_FILE = "assets.extra/langzoo.json"


def export_causal_lm(
    model: Any,
    directory: str | os.PathLike[str],
    *,
    stride: int | None = None,
    max_new_tokens: int | None = None,
) -> None:
    """Writes `model` as a SavedModel that stock TensorFlow Serving hosts as it is.

    The export is written beside `directory`, checked (its ops, and every signature in
    a TF1 session as TensorFlow Serving runs it), and then renamed, so that nothing
    half-written or unfit is ever seen at `directory`.

    Args:
        model: a `langzoo.models.CausalLM`.
        directory: where the SavedModel will stand; must not exist, or be empty.
        stride: int in [1, context length]. Distance between the windows in which a
            document longer than the context is scored. Defaults to half the context.
        max_new_tokens: int in [1, context length). The most tokens that a request may
            generate. Defaults to half the context.

    Raises:
        ValueError: an option is out of its range.
        ExportError: `directory` is in use, or the export fails a check.
    """
    given = ExportSettings(score_stride=stride, max_new_tokens=max_new_tokens)
    stride, cap = given.lengths(int(model.context_length))
    directory = os.fspath(directory).rstrip("/")
    if tf.io.gfile.exists(directory) and tf.io.gfile.listdir(directory):
        raise ExportError(f"{directory} is not empty")

    unfinished = f"{directory}.unfinished-{os.getpid()}"
    try:
        with without_cudnn():  # What is exported on a GPU must run on a CPU, too.
            _save(model, unfinished, stride=stride, cap=cap)
        write_warmup_requests(unfinished)
        check_export(unfinished)
        if tf.io.gfile.exists(directory):
            tf.io.gfile.rmtree(directory)
        tf.io.gfile.rename(unfinished, directory)
    finally:
        if tf.io.gfile.exists(unfinished):
            tf.io.gfile.rmtree(unfinished)


def read_metadata(directory: str | os.PathLike[str]) -> dict[str, Any]:
    """What `export_causal_lm` noted about the export in `directory`.

    Keys: `langzoo_version`, `model` (`class`, `backbone`, `config`, `parameters`),
    `context_length`, `stride`, `max_new_tokens`, `vocabulary_size`, `signatures`.
    """
    with tf.io.gfile.GFile(os.path.join(directory, METADATA_FILE)) as file:
        return json.load(file)


def _save(model: Any, directory: str, *, stride: int, cap: int) -> None:
    traced = TracedModel(model)
    signatures = build_signatures(traced, stride=stride, cap=cap)
    holder = tf.Module()
    holder.weights = traced.variables
    holder.tokenizer = model.preprocessor.tokenizer
    options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
    tf.saved_model.save(holder, directory, signatures=signatures, options=options)
    path = os.path.join(directory, METADATA_FILE)
    tf.io.gfile.makedirs(os.path.dirname(path))
    with tf.io.gfile.GFile(path, "w") as file:
        metadata = _metadata(model, signatures, stride=stride, cap=cap)
        file.write(json.dumps(metadata, indent=2, default=str))


def _metadata(
    model: Any, signatures: dict[str, Any], *, stride: int, cap: int
) -> dict[str, Any]:
    return {
        "langzoo_version": __version__,
        "model": {
            "class": type(model).__name__,
            "backbone": type(model.backbone).__name__,
            "config": model.backbone.get_config(),
            "parameters": model.count_params(),
        },
        "context_length": model.context_length,
        "stride": stride,
        "max_new_tokens": cap,
        "vocabulary_size": model.backbone.vocabulary_size,
        "signatures": sorted(signatures),
    }
