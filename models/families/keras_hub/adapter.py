"""Any causal language model of KerasHub where one of the zoo is expected."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator
from typing import Any

import keras
import keras_hub
import tensorflow as tf
from keras.src.backend.tensorflow import core as keras_core

from ...backbone import Cache, Tensor, require
from ...tasks.adaptation.settings import DynamicEvaluation, NeuralCache
from ...tasks.adaptation.texts import adapted_scores
from ...tasks.causal_lm import CausalLM, CausalLMPreprocessor
from ...tasks.scoring import is_text, score_texts
from ...tokenizers.keras_hub import preset_tokenizer
from .around import Around, require_ids


@keras.saving.register_keras_serializable(package="langzoo")
class KerasHubCausalLM(Around, keras_hub.models.CausalLM):
    """A KerasHub model as the export, the scoring and the generation take it.

    It has the model's layers and weights, and what `langzoo.models.CausalLM` has
    besides: `context_length`, `prefill()`, and a `call_with_cache()` of which no op is
    left to XLA, so that every model server runs it. A preset that it saves is the
    model's.

    Args:
        model: a `keras_hub.models.CausalLM` that reads text only, and whose
            `call_with_cache()` takes token ids, a cache and an index.
        tokenizer: a tokenizer of `langzoo.models` for the model's vocabulary.
        context_length: int or `None`. Longest input, in tokens. Defaults to `None`,
            the `max_sequence_length` of the model's backbone.
        compile: bool. Whether to compile it as KerasHub does, with the sampler of the
            model. Defaults to `True`.
        **kwargs: `name`, by default the model's.

    Call arguments:
        inputs: as those of the model.

    Attributes:
        model: the model.

    Raises:
        ValueError: if the model reads other things than text, the tokenizer has more
            token ids than the model, or there is no context length, or one that is
            longer than the model's positions.

    Example:
    ```python
    tokenizer = ByteTokenizer()
    backbone = keras_hub.models.GPT2Backbone(
        tokenizer.vocabulary_size(), num_layers=2, num_heads=2, hidden_dim=16,
        intermediate_dim=64, max_sequence_length=32,
    )
    model = KerasHubCausalLM(keras_hub.models.GPT2CausalLM(backbone), tokenizer)
    export_causal_lm(model, "exported")
    ```
    """

    def __init__(
        self,
        model: keras_hub.models.CausalLM,
        tokenizer: Any,
        context_length: int | None = None,
        compile: bool = True,
        **kwargs: Any,
    ) -> None:
        require(
            set(model.input) == {"token_ids", "padding_mask"},
            f"`{type(model).__name__}` must read text only.",
            inputs=sorted(model.input),
        )
        positions = getattr(model.backbone, "max_sequence_length", None)
        length: Any = context_length or positions
        require(
            length is not None,
            "`context_length` must be given for a model that has none of its own.",
            context_length=context_length,
        )
        require(
            positions is None or length <= positions,
            "`context_length` must not be longer than the model's positions.",
            context_length=length,
            positions=positions,
        )
        require_ids(model, tokenizer)
        # === Layers ===
        self.backbone = model.backbone
        self.preprocessor = CausalLMPreprocessor(tokenizer, sequence_length=length)
        if model.preprocessor is None:
            model.preprocessor = self.preprocessor

        # === Functional Model ===
        super().__init__(
            inputs=model.input,
            outputs=model.output,
            compile=False,
            **{"name": model.name, **kwargs},
        )
        self._keep(model, tokenizer, length)
        if compile:
            self.compile(sampler=getattr(model, "sampler", "top_k"))

    @classmethod
    def from_preset(
        cls,
        preset: str,
        load_weights: bool = True,
        context_length: int | None = None,
        **kwargs: Any,
    ) -> KerasHubCausalLM:
        """A model of KerasHub's preset, with the tokenizer of the preset.

        Args:
            preset: a folder, or a name or handle that KerasHub's `from_preset` knows.
            load_weights: bool. Whether to load the weights. Defaults to `True`.
            context_length: int or `None`. As of the class.
            **kwargs: arguments of `keras_hub.models.CausalLM.from_preset`.
        """
        model = keras_hub.models.CausalLM.from_preset(
            preset, load_weights=load_weights, preprocessor=None, **kwargs
        )
        return cls(model, preset_tokenizer(preset), context_length)

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Configures training and generation, see `keras_hub.models.CausalLM`."""
        super().compile(*args, **kwargs)
        self.model.sampler = self.sampler

    def generate_step(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """As the model's, with the sampler that `compile()` was given."""
        return self.model.generate_step(*args, **kwargs)

    def get_quantization_layer_structure(self, mode: str) -> Any:
        """As the model's."""
        return self.model.get_quantization_layer_structure(mode)

    def score(
        self,
        token_ids: Any,
        padding_mask: Tensor | None = None,
        scoring_mode: str = "logits",
        layer_intercept_fn: Any = None,
        target_ids: Tensor | None = None,
        *,
        stride: int | None = None,
        adapt: NeuralCache | DynamicEvaluation | None = None,
    ) -> Any:
        """Scores texts as `langzoo.models.CausalLM.score`, token ids as the model."""
        if is_text(token_ids) and adapt is not None:
            return adapted_scores(self, token_ids, adapt, stride=stride)
        if is_text(token_ids):
            return score_texts(self, token_ids, stride=stride)
        return self.model.score(
            token_ids, padding_mask, scoring_mode, layer_intercept_fn, target_ids
        )

    token_log_probabilities = CausalLM.token_log_probabilities

    def prefill(self, token_ids: Tensor, length: Tensor) -> Cache:
        """See `langzoo.models.CausalLM.prefill`.

        The cache covers columns from `length` on as well; each is written again before
        any position sees it.
        """
        # Models that can also look at images have more arguments, which may be `None`.
        given = {"token_ids": token_ids, "padding_mask": tf.ones_like(token_ids)}
        build = self.model._build_cache
        with core_ops():
            return build(*map(given.get, inspect.signature(build).parameters))[1]

    def call_with_cache(
        self, token_ids: Tensor, cache: Cache, cache_update_index: Tensor
    ) -> tuple[Tensor, Tensor, Cache]:
        """See `langzoo.models.CausalLM.call_with_cache`."""
        with core_ops():
            return self.model.call_with_cache(token_ids, cache, cache_update_index)


@contextlib.contextmanager
def core_ops() -> Iterator[None]:
    """Within it, `keras.ops.slice_update` needs no op of XLA."""
    original = keras_core.slice_update
    keras_core.slice_update = _slice_update
    try:
        yield
    finally:
        keras_core.slice_update = original


def _slice_update(inputs: Tensor, start_indices: Tensor, updates: Tensor) -> Tensor:
    """`inputs` with `updates`, of the same rank, from `start_indices` on."""
    inputs, updates = tf.convert_to_tensor(inputs), tf.convert_to_tensor(updates)
    start = tf.stack([tf.cast(index, tf.int32) for index in start_indices])
    behind = tf.shape(inputs) - start - tf.shape(updates)  # (rank,)
    paddings = tf.stack([start, behind], axis=1)  # (rank, 2)
    inside = tf.pad(tf.ones_like(updates, tf.bool), paddings)
    return tf.where(inside, tf.pad(updates, paddings), inputs)
