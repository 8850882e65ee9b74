"""The task of classifying texts: one label of several, or any number of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import keras_hub
import numpy as np
from keras import ops
from keras_hub.src.utils.tensor_utils import preprocessing_function

from ..backbone import AnyOf, Tensor, require, token_inputs
from ..tokenizers.byte import ByteTokenizer
from .hidden_states import hidden_states
from .pooling import POOLINGS, Pooling

_ANY_FAMILY = AnyOf(keras_hub.models.Backbone)


@keras.saving.register_keras_serializable(package="langzoo")
class TextClassifierPreprocessor(keras_hub.models.TextClassifierPreprocessor):
    """Turns text into padded token ids for a `TextClassifier` of any family.

    A text becomes `<s> tokens... </s>`; of a longer one the first tokens are kept.

    Args:
        tokenizer: a tokenizer of `langzoo.models`.
        sequence_length: int. The length of the model's input. Defaults to 512.

    Call arguments:
        x: a string, a list of strings, or a string tensor of shape `(batch_size,)`.
        y: the labels' numbers, which go through as they are.
        sample_weight: likewise.
    """

    backbone_cls = _ANY_FAMILY
    # See `CausalLMPreprocessor`.
    tokenizer_cls = ByteTokenizer

    def build(self, input_shape: Any) -> None:
        self.packer = keras_hub.layers.StartEndPacker(
            sequence_length=self.sequence_length,
            start_value=self.tokenizer.start_token_id,
            end_value=self.tokenizer.end_token_id,
            pad_value=self.tokenizer.pad_token_id,
            return_padding_mask=True,
        )
        self.built = True

    @preprocessing_function
    def call(self, x: Any, y: Any = None, sample_weight: Any = None) -> Any:
        """The features of texts, with what else is given."""
        token_ids, padding_mask = self.packer(self.tokenizer(x))
        features = {"token_ids": token_ids, "padding_mask": padding_mask}
        return keras.utils.pack_x_y_sample_weight(features, y, sample_weight)


@keras.saving.register_keras_serializable(package="langzoo")
class TextClassifier(keras_hub.models.TextClassifier):
    """Says which label a text has, or which labels, with any backbone.

    The model is functional, from `{"token_ids": int32, "padding_mask": bool}`, both of
    shape `(batch_size, sequence_length)`, to float32 logits of shape
    `(batch_size, num_labels)`: a pooling of the backbone's hidden states, dropout, and
    a dense layer.

    Args:
        backbone: a backbone of the zoo or of KerasHub.
        labels: list of strings. The names of the labels, in the order of the logits.
        preprocessor: a `TextClassifierPreprocessor`, or `None` if inputs are always
            token ids. Defaults to `None`.
        pooling: one of `POOLINGS`. Which hidden states are read: see `Pooling`.
            Defaults to `"mean"`.
        multi_label: bool. Whether a text has any number of labels, each by itself.
            Defaults to `False`, exactly one.
        dropout: float. Of what the last layer reads. Defaults to 0.
        **kwargs: `name`, and `compile=False` to leave the model uncompiled.

    Call arguments:
        inputs: dictionary of `token_ids` and `padding_mask`, as above.

    Raises:
        ValueError: if there are fewer than two labels (of `multi_label` fewer than
            one), or two alike.

    Example:
    ```python
    tokenizer = ByteTokenizer()
    model = TextClassifier(
        backbone=LSTMBackbone(tokenizer.vocabulary_size(), max_sequence_length=64),
        labels=["question", "statement"],
        preprocessor=TextClassifierPreprocessor(tokenizer, sequence_length=64),
    )
    model.fit(["to be, or not to be?", "it is so"], [0, 1], batch_size=2)
    model.classify("is it?")  # {"question": 0.7, "statement": 0.3}
    model.save_to_preset("questions")
    model = TextClassifier.from_preset("questions")
    ```
    """

    backbone_cls = _ANY_FAMILY
    preprocessor_cls = TextClassifierPreprocessor

    def __init__(
        self,
        backbone: keras_hub.models.Backbone,
        labels: Sequence[str],
        preprocessor: TextClassifierPreprocessor | None = None,
        *,
        pooling: str = POOLINGS[0],
        multi_label: bool = False,
        dropout: float = 0.0,
        **kwargs: Any,
    ) -> None:
        require_labels(labels, multi_label)
        family = getattr(backbone, "family", None)
        require(
            pooling != "first" or family is None or family.fills_gaps,
            "`pooling` cannot be 'first' where the first state sees no other token.",
            pooling=pooling,
        )
        # === Config ===
        # First, as making the layers reads it.
        self.labels = list(labels)
        self.pooling = pooling
        self.multi_label = multi_label
        self.dropout = dropout

        # === Layers ===
        self.backbone = backbone
        self.preprocessor = preprocessor
        self.make_layers()

        # === Functional Model ===
        inputs = token_inputs()
        super().__init__(inputs=inputs, outputs=self.run_layers(inputs), **kwargs)

    def make_layers(self) -> None:
        """Sets the layers between the backbone and the logits as attributes."""
        dtype = self.backbone.dtype_policy
        self.pooler = Pooling(self.pooling, dtype=dtype, name="pooling")
        self.dropout_layer = keras.layers.Dropout(
            self.dropout, dtype=dtype, name="output_dropout"
        )
        self.head = keras.layers.Dense(len(self.labels), dtype="float32", name="head")

    def run_layers(self, inputs: dict[str, Tensor]) -> Tensor:
        """The logits `(batch_size, num_labels)` of symbolic inputs."""
        states = hidden_states(self.backbone, inputs)  # (B, T, D)
        pooled = self.pooler(states, inputs["padding_mask"])  # (B, D)
        return self.head(self.dropout_layer(pooled))  # (B, C)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "labels": self.labels,
            "pooling": self.pooling,
            "multi_label": self.multi_label,
            "dropout": self.dropout,
        }

    def compile(
        self,
        optimizer: Any = "auto",
        loss: Any = "auto",
        *,
        metrics: Any = "auto",
        **kwargs: Any,
    ) -> None:
        """Configures training, as KerasHub does.

        Args:
            optimizer: see `keras_hub.models.TextClassifier.compile`.
            loss: see there. Defaults to the mean cross-entropy of the labels' numbers,
                `(batch_size,)`; with `multi_label` to that of each label by itself, of
                zeros and ones `(batch_size, num_labels)`.
            metrics: see there. Defaults to the accuracy.
            **kwargs: arguments of `keras.Model.compile`.
        """
        if self.multi_label and isinstance(loss, str) and loss == "auto":
            loss = keras.losses.BinaryCrossentropy(from_logits=True)
        if self.multi_label and isinstance(metrics, str) and metrics == "auto":
            metrics = [keras.metrics.BinaryAccuracy(threshold=0.0)]
        super().compile(optimizer=optimizer, loss=loss, metrics=metrics, **kwargs)

    @property
    def context_length(self) -> int:
        """The longest input, in tokens, that the model is made for."""
        if self.preprocessor is not None:
            return int(self.preprocessor.sequence_length)
        return int(self.backbone.max_sequence_length)

    def decisions(self) -> keras.Model:
        """The model as it is trained: cross-entropy is of its last axis.

        Returns:
            A model of the same inputs. Its outputs are the logits, with targets int32
            `(batch_size,)`; with `multi_label` those of no and yes for each label
            `(batch_size, num_labels, 2)`, with targets int32 of that shape but the
            last axis.
        """
        logits = self.output
        if self.multi_label:
            logits = ops.stack([ops.zeros_like(logits), logits], axis=-1)  # (B, C, 2)
        return keras.Model(self.input, logits)

    def classify(self, texts: Any) -> Any:
        """How likely each label is of texts.

        Args:
            texts: a string, or a list or array of strings.

        Returns:
            For a string a dictionary from labels to probabilities, the likeliest first;
            for several a list of such. With `multi_label` each label has a probability
            of its own; else they sum to one.
        """
        is_one = isinstance(texts, (str, bytes))
        logits = self.predict([texts] if is_one else list(texts), verbose=0)
        answers = []
        for row in ops.convert_to_numpy(self.probabilities(logits)):
            order = np.argsort(-row, kind="stable")
            answers.append({self.labels[i]: float(row[i]) for i in order})
        return answers[0] if is_one else answers

    def probabilities(self, logits: Tensor) -> Tensor:
        """Those of the labels, by logits `(..., num_labels)`: of the same shape."""
        return ops.sigmoid(logits) if self.multi_label else ops.softmax(logits)


def require_labels(labels: Sequence[str], multi_label: bool) -> None:
    """Checks names of labels.

    Raises:
        ValueError: as of `TextClassifier`.
    """
    least = 1 if multi_label else 2
    require(
        len(labels) >= least and len(set(labels)) == len(labels),
        f"`labels` must be at least {least} different names.",
        labels=list(labels),
    )
