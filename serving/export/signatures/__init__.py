"""The signatures of a task's models, as functions of tensors, by task.

What they take and give is in `contract`; a task's module says how it is computed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import tensorflow as tf

# By task: a function of a model and options, which raises ValueError where one of these
# is out of its range, and gives `Signatures`.
SIGNATURES = {
    "causal_lm": "langzoo.serving.export.signatures.causal_lm:build",
    "masked_lm": "langzoo.serving.export.signatures.masked_lm:build",
    "text_classifier": "langzoo.serving.export.signatures.text_classifier:build",
    "seq_to_seq_lm": "langzoo.serving.export.signatures.seq_to_seq_lm:build",
    "token_classifier": "langzoo.serving.export.signatures.token_classifier:build",
}


class Signatures(NamedTuple):
    """What is saved of a model.

    Attributes:
        functions: by the names of the signatures.
        variables: what they read.
        options: how they were built, for the export's metadata.
    """

    functions: Mapping[str, Callable[..., dict[str, tf.Tensor]]]
    variables: list[tf.Variable]
    options: dict[str, Any]
