"""The task of tagging words: one tag of several for each word of a text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import keras_hub
import numpy as np
import tensorflow as tf
from keras_hub.src.utils.tensor_utils import preprocessing_function

from ..backbone import AnyOf, Tensor, token_inputs
from .both_ways import map_asked
from .hidden_states import hidden_states
from .scoring import ScoreFunction, checked_stride, framed_ids
from .text_classifier import TextClassifierPreprocessor, require_labels
from .words import tokens_of_words, words_of

_ANY_FAMILY = AnyOf(keras_hub.models.Backbone)


@keras.saving.register_keras_serializable(package="langzoo")
class TokenClassifierPreprocessor(TextClassifierPreprocessor):
    """Turns text into padded token ids for a `TokenClassifier` of any family.

    A text becomes `<s> tokens... </s>`, the tokens of each word by itself; of a longer
    one the first tokens are kept. Words stand between white space.

    Args:
        tokenizer: a tokenizer of `langzoo.models`.
        sequence_length: int. The length of the model's input. Defaults to 512.

    Call arguments:
        x: a string, a list of strings, or a string tensor of shape `(batch_size,)`.
        y: the tags' numbers, int, for each text its words' and then any number of -1,
            of shape `(batch_size, num_words)`. They become the targets at each word's
            last token, of shape `(batch_size, sequence_length)`.
        sample_weight: of the texts; it becomes that of their words.
    """

    backbone_cls = _ANY_FAMILY

    @preprocessing_function
    def call(self, x: Any, y: Any = None, sample_weight: Any = None) -> Any:
        """The features of texts, with targets and weights."""
        is_one = not tf.convert_to_tensor(x).shape.rank
        words = words_of(tf.reshape(x, [-1]))
        ids, sizes = tokens_of_words(self.tokenizer, words)
        token_ids, padding_mask = self.packer(ids)
        if is_one:
            token_ids, padding_mask = token_ids[0], padding_mask[0]
        features = {"token_ids": token_ids, "padding_mask": padding_mask}
        if y is None:
            return features
        targets, weights = self._at_last_tokens(tf.convert_to_tensor(y), sizes)
        if sample_weight is not None:
            weights *= tf.cast(sample_weight, tf.float32)[:, tf.newaxis]
        return features, targets, weights

    def _at_last_tokens(
        self, tags: tf.Tensor, sizes: tf.RaggedTensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Tags `[b, n]` where the words of such sizes have their last tokens."""
        column = tf.cumsum(sizes.to_tensor(0), axis=1)  # [b, w]
        number = tf.minimum(tf.shape(column)[1], tf.shape(tags)[1])
        column, tags = column[:, :number], tf.cast(tags[:, :number], tf.int32)
        is_there = tf.sequence_mask(sizes.row_lengths(), number) & (tags >= 0)
        is_there &= column < self.sequence_length
        row = tf.where(is_there)[:, 0]
        at = tf.stack([row, column[is_there]], axis=1)
        shape = tf.cast([tf.shape(tags)[0], self.sequence_length], tf.int64)
        weights = tf.scatter_nd(at, tf.ones_like(row, tf.float32), shape)
        return tf.scatter_nd(at, tags[is_there], shape), weights


@keras.saving.register_keras_serializable(package="langzoo")
class TokenClassifier(keras_hub.models.Task):
    """Says which tag each word of a text has, with any backbone.

    The model is functional, from `{"token_ids": int32, "padding_mask": bool}`, both of
    shape `(batch_size, sequence_length)`, to float32 logits of shape
    `(batch_size, sequence_length, num_labels)`: dropout and a dense layer on the
    backbone's hidden states. Those of a word are the ones at its last token.

    Args:
        backbone: a backbone of the zoo or of KerasHub.
        labels: list of strings. The tags, in the order of the logits.
        preprocessor: a `TokenClassifierPreprocessor`, or `None` if inputs are always
            token ids. Defaults to `None`.
        dropout: float. Of what the last layer reads. Defaults to 0.
        **kwargs: `name`, and `compile=False` to leave the model uncompiled.

    Call arguments:
        inputs: dictionary of `token_ids` and `padding_mask`, as above.

    Raises:
        ValueError: if there are fewer than two labels, or two alike.

    Example:
    ```python
    tokenizer = ByteTokenizer()
    model = TokenClassifier(
        backbone=BertBackbone(tokenizer.mask_token_id + 1, max_sequence_length=64),
        labels=["B-PER", "O"],
        preprocessor=TokenClassifierPreprocessor(tokenizer, sequence_length=64),
    )
    model.fit(["Ann came", "so did Bob"], [[0, 1, -1], [1, 1, 0]], batch_size=2)
    model.tag("Bob came")  # [("Bob", "B-PER"), ("came", "O")]
    ```
    """

    backbone_cls = _ANY_FAMILY
    preprocessor_cls = TokenClassifierPreprocessor

    def __init__(
        self,
        backbone: keras_hub.models.Backbone,
        labels: Sequence[str],
        preprocessor: TokenClassifierPreprocessor | None = None,
        *,
        dropout: float = 0.0,
        **kwargs: Any,
    ) -> None:
        require_labels(labels, multi_label=False)
        # === Config ===
        # First, as making the layers reads it.
        self.labels = list(labels)
        self.dropout = dropout

        # === Layers ===
        self.backbone = backbone
        self.preprocessor = preprocessor
        self.make_layers()

        # === Functional Model ===
        inputs = token_inputs()
        logits = self.logits(self.hidden_states(inputs, training=None))
        super().__init__(inputs=inputs, outputs=logits, **kwargs)

    def make_layers(self) -> None:
        """Sets the layers between the backbone and the logits as attributes."""
        self.dropout_layer = keras.layers.Dropout(
            self.dropout, dtype=self.backbone.dtype_policy, name="output_dropout"
        )
        self.head = keras.layers.Dense(len(self.labels), dtype="float32", name="head")

    def hidden_states(
        self, inputs: dict[str, Tensor], training: bool | None = False
    ) -> Tensor:
        """What `logits` reads of tokens, `(batch_size, sequence_length, width)`."""
        states = hidden_states(self.backbone, inputs, training=training)
        return self.dropout_layer(states, training=training)

    def logits(self, hidden_states: Tensor) -> Tensor:
        """Those of the tags, float32 `(..., num_labels)`, by states `(..., width)`."""
        return self.head(hidden_states)

    def get_config(self) -> dict[str, Any]:
        own = {"labels": self.labels, "dropout": self.dropout}
        return {**super().get_config(), **own}

    def compile(
        self,
        optimizer: Any = "auto",
        loss: Any = "auto",
        *,
        weighted_metrics: Any = "auto",
        **kwargs: Any,
    ) -> None:
        """Configures training.

        Args:
            optimizer: as of `keras.Model.compile`. Defaults to Adam.
            loss: likewise. Defaults to the mean cross-entropy of the words' tags.
            weighted_metrics: likewise. Defaults to the accuracy.
            **kwargs: arguments of `keras.Model.compile`.
        """
        if isinstance(optimizer, str) and optimizer == "auto":
            optimizer = keras.optimizers.Adam(5e-5)
        if isinstance(loss, str) and loss == "auto":
            loss = keras.losses.SparseCategoricalCrossentropy(
                from_logits=True, reduction="mean_with_sample_weight"
            )
        if isinstance(weighted_metrics, str) and weighted_metrics == "auto":
            weighted_metrics = [keras.metrics.SparseCategoricalAccuracy("accuracy")]
        super().compile(
            optimizer=optimizer, loss=loss, weighted_metrics=weighted_metrics, **kwargs
        )

    @property
    def context_length(self) -> int:
        """The longest input, in tokens, that the model is made for."""
        if self.preprocessor is not None:
            return int(self.preprocessor.sequence_length)
        return int(self.backbone.max_sequence_length)

    def tag(self, texts: Any) -> Any:
        """The tag of each word of texts of any length.

        Args:
            texts: a string, or a list or array of strings.

        Returns:
            For a string a list of pairs of a word and its tag; for several a list of
            such.
        """
        is_one = isinstance(texts, (str, bytes))
        function = ScoreFunction.of(
            *(self, "tag_function", ()),
            lambda text: logits_of_words(self, text),
            tf.TensorSpec([None], tf.string),
        )
        words, logits = function(tf.constant([texts] if is_one else list(texts)))
        tags = np.array(self.labels)[np.argmax(logits, axis=-1)]
        found = [
            list(zip((word.decode() for word in row), own.tolist(), strict=True))
            for row, own in zip(
                words.to_list(),
                np.split(tags, words.row_splits.numpy()[1:-1]),
                strict=True,
            )
        ]
        return found[0] if is_one else found


def logits_of_words(
    model: TokenClassifier, text: tf.Tensor
) -> tuple[tf.RaggedTensor, tf.Tensor]:
    """The words of texts of any length, and the logits of their tags.

    A text of more tokens than the context is read in windows: see `both_ways`.

    Args:
        model: the model, with a preprocessor.
        text: string `[b]`.

    Returns:
        string `[b, (w)]`, and float32 `[n, num_labels]` of all these words.
    """
    preprocessor: Any = model.preprocessor
    tokenizer = preprocessor.tokenizer
    words = words_of(text)
    ids, sizes = tokens_of_words(tokenizer, words)
    documents = framed_ids(tokenizer, ids)
    # The last token of each, behind so many `<s>` and `</s>`.
    last = tf.cumsum(sizes.flat_values) + 2 * sizes.value_rowids()
    is_last = tf.scatter_nd(
        last[:, tf.newaxis],
        tf.ones_like(last, tf.bool),
        tf.shape(documents.flat_values, tf.int64),
    )
    spec = tf.TensorSpec([None, len(model.labels)], tf.float32)
    (logits,) = map_asked(
        model,
        documents,
        is_last,
        lambda logits, _: (logits,),
        (spec,),
        stride=checked_stride(model, None),
    )
    return words, logits
