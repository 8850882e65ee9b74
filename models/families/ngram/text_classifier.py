"""A language model of n-grams for each label: the generative classifier."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops
from scipy import optimize, special

from ...backbone import AnyOf, Tensor, require
from ...learning.holding_out import held_out
from ...tasks.text_classifier import TextClassifier, TextClassifierPreprocessor
from ..one_epoch import forget_graphs, one_epoch
from .causal_lm import NgramBackbone, unpredictable
from .kneser_ney import KneserNey, KneserNeyTables

_HELD_OUT, _MOST_HELD_OUT = 0.2, 2000
_BATCH = 64
_SHARES = np.linspace(0.1, 0.9, 9)


@keras.saving.register_keras_serializable(package="langzoo")
class NgramTextClassifier(TextClassifier):
    """Says by Bayes' rule which label's language model a text is likeliest of.

    Each label has an n-gram model with Kneser-Ney smoothing, mixed with the one of all
    texts, which is the backbone. How they are mixed, and how much a text's likelihood
    counts beside the frequencies of the labels, is learned on a fifth of the texts;
    then all of them are counted.

    It learns with `fit(documents, targets)`, in seconds: no other classifier is worth
    its cost that is no better.

    Args:
        backbone: an `NgramBackbone`.
        labels: list of strings. As of `TextClassifier`.
        preprocessor: likewise.
        multi_label: bool. Whether a text has any number of labels; each then has a
            model of the texts with it, and one of those without it.
        **kwargs: those of `TextClassifier`; `pooling` and `dropout`, of networks, have
            no effect.

    Call arguments:
        inputs: as those of `TextClassifier`. The logits are log-probabilities, with
            `multi_label` log-odds.

    References:
        - [Peng et al., 2003](https://aclanthology.org/E03-1053/)
    """

    backbone_cls = AnyOf(NgramBackbone)
    preprocessor_cls = TextClassifierPreprocessor

    def make_layers(self) -> None:
        self.bayes = Bayes(
            self.backbone.token_embedding,
            len(self.labels),
            self.multi_label,
            name="bayes",
        )

    def run_layers(self, inputs: dict[str, Tensor]) -> Tensor:
        return self.bayes(inputs["token_ids"], inputs["padding_mask"])  # (B, C)

    def compile(self, *args: Any, jit_compile: Any = False, **kwargs: Any) -> None:
        """Configures evaluation, see `TextClassifier.compile`.

        Args:
            *args: arguments of `TextClassifier.compile`.
            jit_compile: ignored, as XLA cannot compile the look-up.
            **kwargs: arguments of `TextClassifier.compile`.
        """
        super().compile(*args, jit_compile=False, **kwargs)

    def fit(self, x: Any, y: Any = None, **_: Any) -> keras.callbacks.History:
        """Learns from texts, in place of what was learned before.

        Args:
            x: documents: strings, or integer arrays of token ids without `<s>` and
                `</s>`. They are counted whole, whatever the context length. Or what the
                preprocessor makes of texts; or a `tf.data.Dataset` of batches of such
                with their `y`.
            y: int array: the labels' numbers `(num_documents,)`, with `multi_label`
                zeros and ones `(num_documents, num_labels)`.
            **_: ignored: what is of steps and batches.

        Returns:
            A `History` of one epoch, whose `loss` is the mean cross-entropy, in nats a
            decision, of the texts that were held out.

        Raises:
            ValueError: if there are fewer than two documents, or no preprocessor.
        """
        self._assert_compile_called("fit")
        if isinstance(x, tf.data.Dataset):
            batches = [keras.utils.unpack_x_y_sample_weight(batch)[:2] for batch in x]
            documents = [one for part, _ in batches for one in self._documents(part)]
            y = np.concatenate([labels for _, labels in batches])
        else:
            documents = self._documents(x)
        share = min(_HELD_OUT, _MOST_HELD_OUT / max(len(documents), 1))
        is_held = held_out(len(documents), share)
        is_of = self.bayes.is_of(np.asarray(y))
        held = [documents[i][: self.context_length] for i in np.flatnonzero(is_held)]
        with one_epoch(self) as logs:
            self._count(documents, is_of & ~is_held[:, None])
            logs["loss"] = self.bayes.weigh(held, is_of[is_held])
            self._count(documents, is_of)
            forget_graphs(self.backbone)
            forget_graphs(self)
        return self.history

    @property
    def _tokenizer(self) -> Any:
        preprocessor: Any = self.preprocessor
        require(preprocessor is not None, "`fit` needs a preprocessor.")
        return preprocessor.tokenizer

    def _documents(self, x: Any) -> list[np.ndarray]:
        """The token ids of documents, between `<s>` and `</s>`."""
        if isinstance(x, dict):
            ids, inside = np.asarray(x["token_ids"]), np.asarray(x["padding_mask"])
            return [row[is_in] for row, is_in in zip(ids, inside, strict=True)]
        tokenizer = self._tokenizer
        items = list(x.numpy() if tf.is_tensor(x) else x)
        if items and isinstance(items[0], (str, bytes)):
            ids = tokenizer.tokenize(tf.constant(items))
            items = np.split(ids.flat_values.numpy(), ids.row_splits.numpy()[1:-1])
        start, end = tokenizer.start_token_id, tokenizer.end_token_id
        return [np.concatenate([[start], ids, [end]]).astype(np.int32) for ids in items]

    def _count(self, documents: list[np.ndarray], is_of: np.ndarray) -> None:
        """Lets each model count the documents that it is of, one of them those of any.

        Args:
            documents: token ids.
            is_of: bool `(num_documents, num_models)`.
        """
        self.bayes.frequencies.assign(is_of.sum(axis=0) + 0.5)
        layers = [self.backbone.token_embedding, *self.bayes.models]
        for layer, rows in zip(layers, [is_of.any(axis=1), *is_of.T], strict=True):
            layer.tables = self._tables([documents[i] for i in np.flatnonzero(rows)])

    def _tables(self, documents: list[np.ndarray]) -> KneserNeyTables:
        backbone = self.backbone
        if not documents:
            return KneserNeyTables.uniform(backbone.vocabulary_size)
        tables, _ = backbone.estimate(
            np.concatenate(documents),
            np.array([len(document) for document in documents]),
            unpredictable(getattr(self.preprocessor, "tokenizer", None)),
        )
        return tables


@keras.saving.register_keras_serializable(package="langzoo")
class Bayes(keras.layers.Layer):
    """The logits of labels, by language models of the texts that have them.

    A token has the probability `share * p(token | label) + (1 - share) * p(token)`; a
    label's logit is the logarithm of its frequency, and of a text's probability
    `scale` times. With `scale` 1 it would be Bayes' rule, and far too sure of itself,
    as tokens depend on each other in ways that n-grams do not know.

    Args:
        everything: a `KneserNey` of all texts, which belongs to another layer.
        num_labels: int.
        multi_label: bool. Whether each label has two models, of the texts without it
            and of those with it.

    Call arguments:
        token_ids: int32 tensor of shape `(batch_size, sequence_length)`.
        padding_mask: bool tensor of that shape.

    Returns:
        A float32 tensor of shape `(batch_size, num_labels)`.
    """

    def __init__(
        self, everything: KneserNey, num_labels: int, multi_label: bool, **kwargs: Any
    ) -> None:
        super().__init__(dtype="float32", **kwargs)
        self.supports_jit = False
        # By a function, as it is a layer of the backbone's.
        self._of_everything = everything.target_log_probabilities
        self._multi_label = multi_label
        self.models = [
            KneserNey(
                everything.vocabulary_size,
                everything.order,
                dtype="float32",
                name=f"kneser_ney_{number}",
            )
            for number in range(num_labels * (2 if multi_label else 1))
        ]

    def build(self, *_: Any) -> None:
        for model in self.models:
            model.build((None, None))
        self.share = self._number("share", (), 0.5)
        self.scale = self._number("scale", (), 1.0)
        self.frequencies = self._number("frequencies", (len(self.models),), 1.0)
        self.built = True

    def _number(self, name: str, shape: tuple[int, ...], value: float) -> Any:
        initializer = keras.initializers.Constant(value)
        return self.add_weight(
            shape=shape, initializer=initializer, name=name, trainable=False
        )

    def call(self, token_ids: Tensor, padding_mask: Tensor) -> Tensor:
        own, general = self._log_probabilities(token_ids)
        share = tf.convert_to_tensor(self.share)
        mixed = ops.logaddexp(own + tf.math.log(share), general + tf.math.log1p(-share))
        inside = tf.cast(padding_mask[:, 1:, tf.newaxis], tf.float64)
        # A long text's float32 sum would lose digits that a gate compares.
        total = tf.reduce_sum(tf.cast(mixed, tf.float64) * inside, axis=1)  # (B, M)
        frequencies = tf.cast(tf.convert_to_tensor(self.frequencies), tf.float64)
        scale = tf.cast(tf.convert_to_tensor(self.scale), tf.float64)
        logits = tf.math.log(frequencies) + scale * total
        if self._multi_label:
            logits = logits[:, 1::2] - logits[:, ::2]
        else:
            logits = tf.nn.log_softmax(logits)
        return tf.cast(logits, tf.float32)

    def compute_output_shape(self, token_ids_shape: Any, *_: Any) -> Any:
        per_label = 2 if self._multi_label else 1
        return token_ids_shape[0], len(self.models) // per_label

    def is_of(self, y: np.ndarray) -> np.ndarray:
        """Which documents each model is of, bool `(num_documents, num_models)`.

        Args:
            y: as of `NgramTextClassifier.fit`.
        """
        if not self._multi_label:
            return y[:, None] == np.arange(len(self.models))
        has = y.astype(bool)
        return np.stack([~has, has], axis=-1).reshape(len(y), -1)

    def weigh(self, documents: list[np.ndarray], is_of: np.ndarray) -> float:
        """Learns share and scale of documents that the models have not counted.

        Args:
            documents: token ids.
            is_of: see above.

        Returns:
            The mean cross-entropy on these documents, in nats a decision.
        """
        own, rest = self._scores(documents)
        firsts = np.cumsum([0, *(len(document) - 1 for document in documents[:-1])])
        frequencies = np.log(keras.ops.convert_to_numpy(self.frequencies))
        found = []
        for share in _SHARES:
            mixed = np.logaddexp(own + np.log(share), rest + np.log1p(-share))
            totals = np.add.reduceat(mixed, firsts, axis=0)  # (N, M)

            def loss(log_scale: float, totals: np.ndarray = totals) -> float:
                return self._loss(frequencies + np.exp(log_scale) * totals, is_of)

            best = optimize.minimize_scalar(loss, bounds=(-7, 0.7), method="bounded")
            found.append((best.fun, share, np.exp(best.x)))
        least, share, scale = min(found)
        self.share.assign(share)
        self.scale.assign(scale)
        return float(least)

    def _loss(self, logits: np.ndarray, is_of: np.ndarray) -> float:
        alternatives = 2 if self._multi_label else len(self.models)
        logits = logits.reshape(-1, alternatives)
        log_probabilities = special.log_softmax(logits, axis=-1)
        return -float(log_probabilities[is_of.reshape(-1, alternatives)].mean())

    def _scores(self, documents: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """What `_log_probabilities` says of all tokens, one document after another."""
        ids = tf.TensorSpec([None, None], tf.int32)
        function = tf.function(self._log_probabilities, [ids], autograph=False)
        found = []
        for begin in range(0, len(documents), _BATCH):
            rows = tf.ragged.stack(documents[begin : begin + _BATCH])
            inside = tf.sequence_mask(rows.row_lengths() - 1).numpy()
            scores = function(rows.to_tensor(0))
            found.append([part.numpy()[inside].astype(float) for part in scores])
        own, rest = map(np.concatenate, zip(*found, strict=True))
        return own, rest

    def _log_probabilities(self, token_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Of each token but the first: `(B, T - 1, M)`, and of all texts' `(.., 1)`."""
        contexts = self.models[0].contexts(token_ids)[:, :-1]
        targets = token_ids[:, 1:]
        own = [m.target_log_probabilities(contexts, targets) for m in self.models]
        rest = self._of_everything(contexts, targets)
        return tf.stack(own, axis=-1), tf.cast(rest, tf.float32)[..., tf.newaxis]
