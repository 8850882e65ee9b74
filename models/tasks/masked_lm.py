"""The masked language model task: training, filling gaps and pseudo-scores."""

from __future__ import annotations

from typing import Any

import keras
import keras_hub
from keras import ops
from keras_hub.src.utils.keras_utils import gelu_approximate

from ..backbone import AnyOf, CausalBackbone, Tensor, normal_initializer
from ..tokenizers.byte import ByteTokenizer
from .hidden_states import hidden_states
from .pseudo_scoring import score_texts

_ANY_FAMILY = AnyOf(CausalBackbone)
_ACTIVATIONS = {"gelu": "gelu", "gelu_approximate": gelu_approximate}
# What all heads had when none of it was noted.
_OLDER_HEAD: dict[str, Any] = {"head_activation": "gelu", "head_norm_epsilon": 1e-5}


@keras.saving.register_keras_serializable(package="langzoo")
class MaskedLMPreprocessor(keras_hub.models.MaskedLMPreprocessor):
    """Turns text into padded token ids for a `MaskedLM`, some of them hidden.

    A text becomes `<s> tokens... </s>`, cut or padded on the right to
    `sequence_length`. Which tokens are hidden is drawn anew in every call.

    Args:
        tokenizer: a tokenizer of `langzoo.models`.
        sequence_length: int. The length of the model's input. Defaults to 512.
        **kwargs: see `keras_hub.models.MaskedLMPreprocessor`.

    Call arguments:
        x: a string, a list of strings, or a string tensor of shape `(batch_size,)`.

    Returns:
        A tuple `(x, y, sample_weight)`: `x` as the model takes it, `y` the tokens that
        are hidden and `sample_weight` where there are such, both
        `(batch_size, mask_selection_length)`.

    Example:
    ```python
    preprocessor = MaskedLMPreprocessor(ByteTokenizer(), sequence_length=16)
    x, y, sample_weight = preprocessor(["a quick fox", "so"])
    ```
    """

    backbone_cls = _ANY_FAMILY
    # A preset names the class of its own tokenizer; this one only says that there is
    # a tokenizer to load.
    tokenizer_cls = ByteTokenizer

    def build(self, input_shape: Any) -> None:
        # KerasHub's own needs a mask among the tokenizer's ids.
        tokenizer = self.tokenizer
        self.packer = keras_hub.layers.MultiSegmentPacker(
            self.sequence_length,
            start_value=tokenizer.start_token_id,
            end_value=tokenizer.end_token_id,
            pad_value=tokenizer.pad_token_id,
            truncate=self.truncate,
        )
        mask_id = tokenizer.mask_token_id
        self.masker = keras_hub.layers.MaskedLMMaskGenerator(
            max(tokenizer.vocabulary_size(), mask_id + 1),
            self.mask_selection_rate,
            mask_id,
            self.mask_selection_length,
            unselectable_token_ids=[*tokenizer.special_token_ids, mask_id],
            mask_token_rate=self.mask_token_rate,
            random_token_rate=self.random_token_rate,
        )
        self.built = True

    def call(self, x: Any, y: Any = None, sample_weight: Any = None) -> Any:
        if self.masker is None:
            self.build(None)
        features, targets, weights = self._call_tf(x)
        del features["segment_ids"]  # There is one.
        return features, targets, weights


@keras.saving.register_keras_serializable(package="langzoo")
class MaskedLM(keras_hub.models.MaskedLM):
    """A language model that says what is hidden in a text, with a backbone of the zoo.

    The model is functional, from `{"token_ids": int32, "padding_mask": bool}`, both of
    shape `(batch_size, sequence_length)`, and `"mask_positions"`, int32
    `(batch_size, number)`, to float32 logits `(batch_size, number, vocabulary_size)` at
    these positions. Its head is KerasHub's for BERT; the output weights are those of
    the backbone's token embedding.

    Args:
        backbone: a `CausalBackbone` whose family fills gaps.
        preprocessor: a `MaskedLMPreprocessor`, or `None` if inputs are always token
            ids. Defaults to `None`.
        head_activation: one of `"gelu"` and `"gelu_approximate"`, or `None` for the
            backbone's, where it is one of them. Defaults to `None`.
        head_norm_epsilon: float or `None`, for the backbone's. What the norm of the
            head adds to the variance. Defaults to `None`.
        **kwargs: `name`.

    Call arguments:
        inputs: dictionary, as above.

    Example:
    ```python
    tokenizer = ByteTokenizer()
    model = MaskedLM(
        backbone=BertBackbone(tokenizer.mask_token_id + 1, max_sequence_length=64),
        preprocessor=MaskedLMPreprocessor(tokenizer, sequence_length=64),
    )
    model.compile(optimizer=keras.optimizers.AdamW(1e-3))
    model.fit(["to be, or not to be", "that is the question"], batch_size=2)
    model.save_to_preset("to_be")
    model = MaskedLM.from_preset("to_be")
    ```

    References:
        - [Devlin et al., 2018](https://arxiv.org/abs/1810.04805)
    """

    backbone_cls = _ANY_FAMILY
    preprocessor_cls = MaskedLMPreprocessor

    def __init__(
        self,
        backbone: CausalBackbone,
        preprocessor: MaskedLMPreprocessor | None = None,
        head_activation: str | None = None,
        head_norm_epsilon: float | None = None,
        **kwargs: Any,
    ) -> None:
        # === Config ===
        own = getattr(backbone, "activation", None)
        self.head_activation = head_activation or (
            own if own in _ACTIVATIONS else "gelu"
        )
        self.head_norm_epsilon = head_norm_epsilon or getattr(
            backbone, "norm_epsilon", _OLDER_HEAD["head_norm_epsilon"]
        )

        # === Layers ===
        self.backbone = backbone
        self.preprocessor = preprocessor
        self.masked_lm_head = keras_hub.layers.MaskedLMHead(
            vocabulary_size=backbone.vocabulary_size,
            token_embedding=backbone.token_embedding,
            intermediate_activation=_ACTIVATIONS[self.head_activation],
            layer_norm_epsilon=self.head_norm_epsilon,
            kernel_initializer=normal_initializer(),
            dtype=backbone.dtype_policy,
            name="mlm_head",
        )

        # === Functional Model ===
        positions = keras.Input((None,), dtype="int32", name="mask_positions")
        inputs = {**backbone.input, "mask_positions": positions}
        states = backbone(backbone.input)  # (B, T, E)
        outputs = ops.cast(self.masked_lm_head(states, positions), "float32")
        super().__init__(inputs=inputs, outputs=outputs, **kwargs)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "head_activation": self.head_activation,
            "head_norm_epsilon": self.head_norm_epsilon,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> MaskedLM:
        return super().from_config({**_OLDER_HEAD, **config})

    @property
    def context_length(self) -> int:
        """The longest input, in tokens, that the model is made for."""
        return self.backbone.max_sequence_length

    def hidden_states(self, inputs: dict[str, Tensor]) -> Tensor:
        """The states `(batch_size, sequence_length, hidden_dim)` of a call."""
        return hidden_states(self.backbone, inputs, training=False)

    def logits(self, hidden_states: Tensor) -> Tensor:
        """What hidden states `(n, hidden_dim)` say: float32 `(n, vocabulary_size)`."""
        states = hidden_states[:, None]  # (N, 1, E)
        first = ops.zeros_like(states[:, :, 0], "int32")  # (N, 1)
        return ops.cast(self.masked_lm_head(states, first), "float32")[:, 0]

    def score(self, texts: Any, *, stride: int | None = None) -> Any:
        """How well each token of texts fits the others.

        The numbers are those of an export's `token_scores`: see
        `tasks.pseudo_scoring`.

        Args:
            texts: a string, or a list or tensor of `batch_size` strings.
            stride: int in [1, context length]. Distance between the windows in which a
                long text is read, by default half the context.

        Returns:
            A float32 RaggedTensor `(batch_size, None)`: the log-probability, in nats,
            of each token where it alone is hidden; for one string a vector.

        Raises:
            ValueError: if the stride is out of range, or there is no preprocessor.

        Example:
        ```python
        log_probabilities = model.score("to be, or not to be")
        pseudo_perplexity = np.exp(-np.mean(log_probabilities))
        ```
        """
        return score_texts(self, texts, stride=stride)
