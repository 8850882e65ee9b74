"""The causal language model task: training, scoring and generation for every family."""

from __future__ import annotations

from typing import Any

import keras
import keras_hub
from keras import ops

from ..backbone import AnyOf, Cache, CausalBackbone, Tensor, require
from ..tokenizers.byte import ByteTokenizer
from .adaptation.settings import DynamicEvaluation, NeuralCache
from .adaptation.texts import adapted_scores
from .next_token import NextToken, until_stop
from .scoring import is_text, score_texts

_ANY_FAMILY = AnyOf(CausalBackbone)


@keras.saving.register_keras_serializable(package="langzoo")
class CausalLMPreprocessor(keras_hub.models.CausalLMPreprocessor):
    """Turns text into padded token ids for a `CausalLM` of any family.

    A text becomes `<s> tokens... </s>`, cut or padded on the right to
    `sequence_length`.

    Args:
        tokenizer: a tokenizer of `langzoo.models`.
        sequence_length: int. The length of the model's input. Defaults to 1024.
        add_start_token: bool. Whether `<s>` is put before. Defaults to `True`.
        add_end_token: bool. Whether `</s>` is put after. Defaults to `True`.

    Call arguments:
        x: a string, a list of strings, or a string tensor of shape `(batch_size,)`.

    Returns:
        A tuple `(x, y, sample_weight)`: `x` as the model takes it, `y` the next tokens
        and `sample_weight` where they are real, all `(batch_size, sequence_length)`.

    Example:
    ```python
    preprocessor = CausalLMPreprocessor(ByteTokenizer(), sequence_length=8)
    x, y, sample_weight = preprocessor(["a quick fox", "so"])
    ```
    """

    backbone_cls = _ANY_FAMILY
    # A preset names the class of its own tokenizer; this one only says that there is
    # a tokenizer to load.
    tokenizer_cls = ByteTokenizer

    def generate_preprocess(self, x: Any, sequence_length: int | None = None) -> Any:
        """See `keras_hub.models.CausalLMPreprocessor.generate_preprocess`.

        Vocabularies made elsewhere often pad with `</s>`. A sampler would take that for
        a token just written, and stop: behind a prompt another stands in its place.
        """
        features = super().generate_preprocess(x, sequence_length=sequence_length)
        end = self.tokenizer.end_token_id
        if self.tokenizer.pad_token_id != end:
            return features
        token_ids, mask = features["token_ids"], features["padding_mask"]
        return {**features, "token_ids": ops.where(mask, token_ids, int(end == 0))}


@keras.saving.register_keras_serializable(package="langzoo")
class CausalLM(NextToken, keras_hub.models.CausalLM):
    """A language model that predicts the next token, with any backbone of the zoo.

    The model is functional, from `{"token_ids": int32, "padding_mask": bool}`, both of
    shape `(batch_size, sequence_length)`, to float32 logits of shape
    `(batch_size, sequence_length, vocabulary_size)`. The output weights are those of
    the backbone's token embedding.

    Args:
        backbone: a `CausalBackbone`.
        preprocessor: a `CausalLMPreprocessor`, or `None` if inputs are always token
            ids. Defaults to `None`.
        **kwargs: `name`, and `compile=False` to leave the model uncompiled.

    Call arguments:
        inputs: dictionary of `token_ids` and `padding_mask`, as above.

    Example:
    ```python
    tokenizer = ByteTokenizer()
    model = CausalLM(
        backbone=TransformerBackbone(tokenizer.vocabulary_size()),
        preprocessor=CausalLMPreprocessor(tokenizer, sequence_length=64),
    )
    model.compile(optimizer=keras.optimizers.AdamW(1e-3), sampler="top_p")
    model.fit(["to be, or not to be", "that is the question"], batch_size=2)
    model.generate("to be", max_length=32)
    model.save_to_preset("to_be")
    model = CausalLM.from_preset("to_be")
    ```
    """

    backbone_cls: Any = _ANY_FAMILY
    preprocessor_cls = CausalLMPreprocessor

    def __init__(
        self,
        backbone: CausalBackbone,
        preprocessor: CausalLMPreprocessor | None = None,
        **kwargs: Any,
    ) -> None:
        # === Layers ===
        self.backbone = backbone
        self.preprocessor = preprocessor

        # === Functional Model ===
        inputs = backbone.input
        outputs = backbone.logits(backbone(inputs))  # (B, T, V)
        super().__init__(inputs=inputs, outputs=outputs, **kwargs)

    def prefill(self, token_ids: Tensor, length: Tensor) -> Cache:
        """The cache after the first `length` columns; later columns have no influence.

        Args:
            token_ids: int32 tensor of shape `(batch_size, max_length)`.
            length: int32 scalar tensor, from 0 to `max_length`.

        Returns:
            A nest of tensors with leading dimension `batch_size` and with room for
            `max_length` positions, for `call_with_cache()`.
        """
        return self.backbone.prefill(token_ids, length)

    def call_with_cache(
        self, token_ids: Tensor, cache: Cache, cache_update_index: Tensor
    ) -> tuple[Tensor, Tensor, Cache]:
        """Consumes one token a row and predicts the next.

        Args:
            token_ids: int32 tensor of shape `(batch_size, 1)`.
            cache: what `prefill()` or this method returned.
            cache_update_index: int32 scalar tensor, the position of the tokens.

        Returns:
            The logits `(batch_size, 1, vocabulary_size)`, the hidden states
            `(batch_size, 1, hidden_dim)` and the cache, its shapes unchanged.
        """
        hidden_states, cache = self.backbone.call_with_cache(
            token_ids, cache, cache_update_index
        )
        return self.backbone.logits(hidden_states), hidden_states, cache

    def generate_step(
        self,
        inputs: dict[str, Tensor],
        stop_token_ids: list[int] | tuple[int, ...] | None = None,
    ) -> dict[str, Tensor]:
        """Generates for one batch, with the sampler given to `compile()`.

        Args:
            inputs: `token_ids` and `padding_mask` of shape `(batch_size, max_length)`:
                prompts, padded on the right to the length that is wanted.
            stop_token_ids: ids that end a row, or `None` to fill every row.

        Returns:
            `token_ids` with the prompts continued, and `padding_mask`, false behind
            the first stop token. Both `(batch_size, max_length)`.
        """
        token_ids = inputs["token_ids"]  # (B, T)
        prompt_mask = ops.cast(inputs["padding_mask"], "bool")
        # All rows go on from the end of the shortest; the sampler leaves the tokens
        # of longer prompts as they are.
        index = ops.min(ops.sum(ops.cast(prompt_mask, "int32"), axis=-1))

        def next_logits(
            prompt: Tensor, cache: Cache, index: Tensor
        ) -> tuple[Tensor, Tensor, Cache]:
            last = ops.take(prompt, index - 1, axis=1)[:, None]  # (B, 1)
            logits, hidden_states, cache = self.call_with_cache(last, cache, index - 1)
            return logits[:, 0], hidden_states[:, 0], cache  # (B, V), (B, D)

        token_ids = self.sampler(
            next=next_logits,
            prompt=token_ids,
            cache=self.prefill(token_ids, index - 1),
            index=index,
            mask=prompt_mask,
            stop_token_ids=stop_token_ids,
            # Contrastive search compares with the states of the prompt. In a graph
            # this costs the other samplers nothing, as what is not used is not run.
            hidden_states=self.backbone(inputs),
            model=self,
        )
        return {
            "token_ids": token_ids,
            "padding_mask": until_stop(token_ids, prompt_mask, stop_token_ids),
        }

    def score(
        self,
        token_ids: Any,
        padding_mask: Tensor | None = None,
        scoring_mode: str = "logits",
        layer_intercept_fn: None = None,
        target_ids: Tensor | None = None,
        *,
        stride: int | None = None,
        adapt: NeuralCache | DynamicEvaluation | None = None,
    ) -> Any:
        """Scores texts, or given tokens.

        A text is scored from `<s>` to `</s>`, as an export's `token_scores` does it.

        Args:
            token_ids: a string or a list or tensor of `batch_size` strings, with
                `stride`. Or an int32 tensor `(batch_size, sequence_length)`.
            padding_mask: bool tensor of that shape. Defaults to all true.
            scoring_mode: `"logits"`, or `"loss"` for the cross-entropy in nats of
                each target.
            layer_intercept_fn: `None`; a place of KerasHub's arguments.
            target_ids: int32 tensor of that shape, the token that follows each
                position. Needed for `"loss"`.
            stride: int in [0, context length]. Distance between the windows in which a
                long text is scored, by default half the context; 0 carries a state on.
            adapt: a `NeuralCache` or `DynamicEvaluation`, by which the model adapts to
                each text as it scores it. Defaults to `None`, as it is.

        Returns:
            For strings a float32 RaggedTensor `(batch_size, None)`: the
            log-probability, in nats, of each token and of `</s>`; for one a vector.
            (What unknown pieces cost besides: `tasks.scoring.spelling_nll`.) For tokens
            a float32 tensor: logits
            `(batch_size, sequence_length, vocabulary_size)`, or losses
            `(batch_size, sequence_length)`.

        Raises:
            ValueError: if the mode is unknown, the loss has no targets, the stride is
                out of range, there is no preprocessor for strings, or activations
                shall be intercepted.

        Example:
        ```python
        log_probabilities = model.score("to be, or not to be")
        perplexity = np.exp(-np.mean(log_probabilities))
        adapted = model.score("to be, or not to be", adapt=NeuralCache(size=100))
        ```
        """
        if is_text(token_ids) and adapt is not None:
            return adapted_scores(self, token_ids, adapt, stride=stride)
        if is_text(token_ids):
            return score_texts(self, token_ids, stride=stride)
        require(
            layer_intercept_fn is None,
            "`layer_intercept_fn` is for models of KerasHub; `target_ids` come after.",
            layer_intercept_fn=type(layer_intercept_fn).__name__,
        )
        return self._score_tokens(token_ids, padding_mask, scoring_mode, target_ids)

    def _score_tokens(
        self,
        token_ids: Tensor,
        padding_mask: Tensor | None,
        scoring_mode: str,
        target_ids: Tensor | None,
    ) -> Tensor:
        require(
            scoring_mode in ("logits", "loss"),
            "`scoring_mode` must be 'logits' or 'loss'.",
            scoring_mode=scoring_mode,
        )
        require(
            scoring_mode == "logits" or target_ids is not None,
            "`target_ids` must be given for `scoring_mode='loss'`.",
            target_ids=target_ids,
        )
        if padding_mask is None:
            padding_mask = ops.ones_like(token_ids, dtype="bool")
        inputs = {"token_ids": token_ids, "padding_mask": padding_mask}
        if scoring_mode == "logits":
            return self(inputs)
        return -self.token_log_probabilities(inputs, target_ids)
