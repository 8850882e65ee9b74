"""The n-gram language model as a backbone and as a task that counts."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Collection, Iterable, Iterator
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from ...backbone import Cache, CausalBackbone, Tensor, require
from ...tasks.causal_lm import CausalLM, CausalLMPreprocessor
from ..one_epoch import forget_graphs, one_epoch
from .family import NGRAM, NgramSettings
from .kneser_ney import (
    NO_TOKEN,
    KneserNey,
    KneserNeyTables,
    estimate_kneser_ney,
    padded_on_the_left,
)

# Documents are tokenized together: at most so many, and of so many characters or tokens
# but for one.
_DOCUMENTS_A_CHUNK, _CHUNK = 256, 2**20


@keras.saving.register_keras_serializable(package="langzoo")
class NgramBackbone(CausalBackbone):
    """An n-gram model with interpolated modified Kneser-Ney smoothing.

    Its hidden states are the log-probabilities of the next token, so `hidden_dim` is
    `vocabulary_size`. It learns by counting, with `adapt()`; before that all tokens
    are equally likely. Its cache is the last `order - 1` tokens.

    Args:
        vocabulary_size: int. Number of token ids.
        **settings: see `NgramSettings`.

    Call arguments:
        inputs: dictionary of `token_ids` (int32) and `padding_mask` (bool), both
            `(batch_size, sequence_length)`. The output is
            `(batch_size, sequence_length, vocabulary_size)`.

    Example:
    ```python
    backbone = NgramBackbone(vocabulary_size=260, order=3)
    backbone.adapt(np.array([2, 101, 102, 3]), lengths=np.array([4]))
    log_probabilities = backbone(
        {
            "token_ids": np.array([[2, 101]], "int32"),
            "padding_mask": np.ones((1, 2), "bool"),
        }
    )
    ```

    References:
        - [Kneser and Ney, 1995](https://doi.org/10.1109/ICASSP.1995.479394)
        - [Chen and Goodman, 1999](https://doi.org/10.1006/csla.1999.0128)
    """

    family = NGRAM

    def make_layers(self, settings: NgramSettings, dtype: Any) -> None:
        self.token_embedding = KneserNey(
            self.vocabulary_size, settings.order, dtype=dtype, name="kneser_ney"
        )
        self.hidden_dim = self.vocabulary_size

    def run_layers(self, token_ids: Tensor) -> Tensor:
        return self.token_embedding(token_ids)  # (B, T, V)

    def adapt(
        self,
        ids: np.ndarray,
        lengths: np.ndarray,
        unpredictable: Collection[int] = (),
    ) -> float:
        """Learns from sequences, in place of what was learned before.

        Args:
            ids: see `estimate_kneser_ney`.
            lengths: see `estimate_kneser_ney`.
            unpredictable: see `estimate_kneser_ney`.

        Returns:
            The cross-entropy on `ids`, in nats a token.
        """
        self.token_embedding.tables, loss = self.estimate(ids, lengths, unpredictable)
        forget_graphs(self)
        return loss

    def estimate(
        self, ids: np.ndarray, lengths: np.ndarray, unpredictable: Collection[int] = ()
    ) -> tuple[KneserNeyTables, float]:
        """What `adapt` would learn, and returns; nothing changes."""
        return estimate_kneser_ney(
            ids,
            lengths,
            vocabulary_size=self.vocabulary_size,
            order=self.order,
            unpredictable=unpredictable,
            most=self.max_ngrams,
        )

    def token_log_probabilities(self, token_ids: Tensor, target_ids: Tensor) -> Tensor:
        """Log-probabilities of the tokens that follow, in nats.

        The same numbers as in the model's output, without the rest of the vocabulary.

        Args:
            token_ids: int32 tensor of shape `(batch_size, sequence_length)`.
            target_ids: integer tensor of that shape, the token after each position.

        Returns:
            A tensor of that shape.
        """
        contexts = self.token_embedding.contexts(token_ids)  # (B, T, order - 1)
        return self.token_embedding.target_log_probabilities(contexts, target_ids)

    def empty_cache(self, batch_size: Tensor, max_length: Tensor) -> Cache:
        """The tokens before the text, of which there are none.

        Returns:
            An int32 tensor of shape `(batch_size, order - 1)`, the newest last.
        """
        return ops.full((batch_size, self.order - 1), NO_TOKEN, "int32")

    def call_with_cache(
        self, token_ids: Tensor, cache: Cache, cache_update_index: Tensor
    ) -> tuple[Tensor, Cache]:
        tokens = ops.concatenate([cache, ops.cast(token_ids, "int32")], axis=1)
        tokens = tokens[:, 1:]  # (B, order - 1)
        contexts = ops.flip(tokens, axis=1)[:, None]  # (B, 1, order - 1)
        return self.token_embedding.log_probabilities(contexts), tokens  # (B, 1, V)

    def prefill(self, token_ids: Tensor, length: Tensor) -> Cache:
        width = self.order - 1
        columns = ops.cast(length, "int32") + ops.arange(width, dtype="int32")
        padded = padded_on_the_left(ops.cast(token_ids, "int32"), width)  # (B, W + T)
        return ops.take(padded, columns, axis=1)  # (B, W)


class _Sequences(NamedTuple):
    """Token ids of sequences one after another, and each sequence's length."""

    ids: np.ndarray
    lengths: np.ndarray


class Counts:
    """What goes before a task among the base classes of one that counts n-grams."""

    backbone: NgramBackbone
    preprocessor: Any

    def compile(self, *args: Any, jit_compile: Any = False, **kwargs: Any) -> None:
        """Configures generation and evaluation, see the task.

        Args:
            *args: arguments of the task's `compile`.
            jit_compile: ignored, as XLA cannot compile the look-up.
            **kwargs: arguments of the task's `compile`.
        """
        super().compile(  # type: ignore[misc]
            *args, jit_compile=False, **kwargs
        )

    def fit(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        epochs: int = 1,
        verbose: Any = "auto",
        callbacks: Any = None,
        validation_data: Any = None,
        shuffle: bool = True,
        sample_weight: Any = None,
    ) -> keras.callbacks.History:
        """Learns from text, in place of what was learned before.

        Args:
            x: documents or windows. Documents are strings, or integer arrays of token
                ids without `<s>` and `</s>`: any iterable of them, or a
                `tf.data.Dataset`, batched or not. They are used whole, whatever the
                context length. Windows are what the preprocessor makes: a dictionary
                of `token_ids` and `padding_mask`, or a dataset of tuples
                `(x, y, sample_weight)`; no n-gram spans two of them.
            y: the next tokens, if `x` is a dictionary.
            batch_size: int. For `validation_data` only.
            epochs: ignored; so are `verbose` and `shuffle`.
            verbose: ignored.
            callbacks: list of callbacks, for one epoch without batches.
            validation_data: a dataset or a tuple `(x, y, sample_weight)` of what
                `evaluate()` takes, for `val_loss` and the like.
            shuffle: ignored.
            sample_weight: where `y` is real, if `x` is a dictionary.

        Returns:
            A `History` of one epoch, whose `loss` is in nats a token.

        Raises:
            ValueError: if there is no token, or an id is out of range.
        """
        self._assert_compile_called("fit")  # type: ignore[attr-defined]
        with one_epoch(self, callbacks) as logs:
            with _on_disk(self._sequences(x, y, sample_weight)) as sequences:
                logs["loss"] = self.backbone.adapt(
                    *sequences, unpredictable(self._tokenizer)
                )
            forget_graphs(self)
            if validation_data is not None:
                values = keras.utils.unpack_x_y_sample_weight(validation_data)
                results = self.evaluate(  # type: ignore[attr-defined]
                    *values[:2],
                    batch_size=batch_size,
                    sample_weight=values[2],
                    verbose=0,
                    return_dict=True,
                )
                logs |= {f"val_{name}": value for name, value in results.items()}
        return self.history  # type: ignore[attr-defined]

    @property
    def _tokenizer(self) -> Any:
        return getattr(self.preprocessor, "tokenizer", None)

    def _sequences(
        self, x: Any, y: Any = None, sample_weight: Any = None
    ) -> Iterator[_Sequences]:
        """All sequences to learn from, some at a time."""
        if isinstance(x, tf.data.Dataset):
            if _holds_single_strings(x):
                yield from self._documents(x.as_numpy_iterator())
                return
            for element in x:
                values = keras.utils.unpack_x_y_sample_weight(element)
                yield from self._sequences(*values)
        elif isinstance(x, dict):
            yield self._windows(x, y, sample_weight)
        elif isinstance(x, tf.RaggedTensor):
            ids, lengths = x.flat_values.numpy(), x.row_lengths().numpy()
            yield self._framed(_Sequences(ids, lengths))
        else:
            yield from self._documents(x.numpy() if tf.is_tensor(x) else x)

    def _documents(self, x: Iterable[Any]) -> Iterator[_Sequences]:
        require(not isinstance(x, (str, bytes)), "Give a list of strings.", x=x)
        if isinstance(x, np.ndarray) and x.ndim == 1 and x.dtype.kind in "iu":
            x = [x]
        for chunk in _chunks(x):
            is_text = isinstance(chunk[0], (str, bytes))
            yield self._framed(self._tokenized(chunk) if is_text else _joined(chunk))

    def _tokenized(self, texts: list[str | bytes]) -> _Sequences:
        require(
            self._tokenizer is not None,
            "A model without a preprocessor cannot take strings.",
            texts=texts[:1],
        )
        ids = self._tokenizer.tokenize(tf.constant(texts))
        return _Sequences(ids.flat_values.numpy(), ids.row_lengths().numpy())

    def _framed(self, documents: _Sequences) -> _Sequences:
        """Documents between `<s>` and `</s>`, if the model knows them."""
        tokenizer = self._tokenizer
        if tokenizer is None:
            return documents
        lengths = documents.lengths + 2
        ends = np.cumsum(lengths)
        ids = np.empty(lengths.sum(), np.int32)
        is_token = np.ones(len(ids), bool)
        is_token[ends - 1] = is_token[ends - lengths] = False
        ids[is_token] = documents.ids
        ids[ends - lengths] = tokenizer.start_token_id
        ids[ends - 1] = tokenizer.end_token_id
        return _Sequences(ids, lengths)

    def _windows(self, x: dict[str, Any], y: Any, sample_weight: Any) -> _Sequences:
        """The real tokens of windows, a sequence a row, cut before each `<s>`."""
        ids, real = np.asarray(x["token_ids"]), np.asarray(x["padding_mask"])
        if y is not None:
            weight = np.ones(np.shape(y)) if sample_weight is None else sample_weight
            ids = np.concatenate([ids[:, :1], np.asarray(y)], axis=1)
            real = np.concatenate([real[:, :1], np.asarray(weight) > 0], axis=1)
        first = np.zeros(ids.shape, bool)
        first[:, 0] = True
        if self._tokenizer is not None:
            # It is never predicted, so its own weight may be zero.
            is_start = ids == self._tokenizer.start_token_id
            first, real = first | is_start, real | is_start
        number = np.cumsum(first)[real.ravel()]
        _, lengths = np.unique(number, return_counts=True)
        return _Sequences(ids[real].astype(np.int32), lengths)


@keras.saving.register_keras_serializable(package="langzoo")
class NgramCausalLM(Counts, CausalLM):
    """A language model that counts n-grams.

    It is a `CausalLM` like any other, but `fit` goes over the text once, and counts.
    What is left out of the vocabulary is `<pad>` and `<s>`: all other tokens, `<unk>`
    among them, have positive probabilities that sum to one after any context. (A
    neural model's softmax gives a share to those two as well, which it learns to be
    nothing.)

    Args:
        backbone: an `NgramBackbone`.
        preprocessor: a `CausalLMPreprocessor`, or `None` if inputs are always token
            ids. Defaults to `None`.
        **kwargs: `name`, and `compile=False` to leave the model uncompiled.

    Call arguments:
        inputs: as those of `CausalLM`. The logits are log-probabilities.

    Example:
    ```python
    tokenizer = ByteTokenizer()
    model = NgramCausalLM(
        backbone=NgramBackbone(tokenizer.vocabulary_size(), order=4),
        preprocessor=CausalLMPreprocessor(tokenizer, sequence_length=64),
    )
    model.fit(["to be, or not to be", "that is the question"])
    model.generate("to be", max_length=32)
    model.score(["to be"])  # log-probabilities of 5 bytes and `</s>`
    model.save_to_preset("to_be")
    ```
    """

    backbone_cls = NgramBackbone
    preprocessor_cls = CausalLMPreprocessor

    def token_log_probabilities(
        self, inputs: dict[str, Tensor], target_ids: Tensor
    ) -> Tensor:
        """What the logits say of given tokens, at a cost without the vocabulary.

        Args:
            inputs: the inputs of the model; of these only `token_ids` is read.
            target_ids: integer tensor of shape `(batch_size, sequence_length)`.

        Returns:
            A float32 tensor of that shape, in nats.
        """
        token_ids = tf.convert_to_tensor(inputs["token_ids"])
        target_ids = tf.convert_to_tensor(target_ids)
        log_probabilities = self.backbone.token_log_probabilities(token_ids, target_ids)
        return ops.cast(log_probabilities, "float32")


@contextlib.contextmanager
def _on_disk(parts: Iterable[_Sequences]) -> Iterator[_Sequences]:
    """All sequences, the ids in a file that is gone afterwards."""
    lengths = []
    with tempfile.TemporaryFile() as file:
        for part in parts:
            file.write(part.ids.astype(np.int32).tobytes())
            lengths.append(part.lengths)
        require(bool(lengths), "There must be a document.", documents=lengths)
        file.flush()
        ids = np.memmap(file, np.int32, "r") if file.tell() else np.empty(0, np.int32)
        yield _Sequences(ids, np.concatenate(lengths))


def unpredictable(tokenizer: Any | None) -> set[int]:
    """The ids that are never said, of a tokenizer if there is one."""
    if tokenizer is None:
        return set()
    return {tokenizer.pad_token_id, tokenizer.start_token_id}


def _holds_single_strings(dataset: tf.data.Dataset) -> bool:
    spec = tf.nest.flatten(dataset.element_spec)[0]
    return spec.dtype == tf.string and spec.shape.rank == 0


def _chunks(items: Iterable[Any]) -> Iterator[list[Any]]:
    """Documents, as many at a time as are not too large together."""
    chunk: list[Any] = []
    size = 0
    for item in items:
        length = len(item) if isinstance(item, (str, bytes)) else np.size(item)
        if len(chunk) == _DOCUMENTS_A_CHUNK or (chunk and size + length > _CHUNK):
            yield chunk
            chunk, size = [], 0
        chunk.append(item)
        size += length
    if chunk:
        yield chunk


def _joined(documents: list[Any]) -> _Sequences:
    arrays = [np.asarray(document) for document in documents]
    for array in arrays:
        require(
            array.ndim == 1 and (array.dtype.kind in "iu" or not array.size),
            "A document must be a string or a vector of integers.",
            document=array,
        )
    lengths = np.array([len(array) for array in arrays])
    return _Sequences(np.concatenate(arrays).astype(np.int32), lengths)
