"""Tags of words by counting: how often each was seen in contexts of tokens."""

from __future__ import annotations

from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from ...backbone import AnyOf, Tensor, require
from ...learning.holding_out import held_out
from ...tasks.token_classifier import TokenClassifier, TokenClassifierPreprocessor
from ..one_epoch import forget_graphs, one_epoch
from .causal_lm import NgramBackbone, unpredictable
from .tables import LAST_KEY, TableLayer, find

_HELD_OUT, _MOST_HELD_OUT = 0.2, 2000
_BATCH = 64
_NONE = -1
_STRENGTHS = (0.25, 0.5, 1.0, 2.0, 4.0)


_Tagged = tuple[list[np.ndarray], list[np.ndarray]]


class TagTables(NamedTuple):
    """Probabilities of tags in contexts, which are the nodes of a trie.

    Node 0 is the empty context; node `i + 1` has the key `keys[i] = parent *
    (vocabulary_size + 1) + token`, where `vocabulary_size` stands for no token.

    Attributes:
        keys: int64 `(num_nodes,)`, sorted, the last one larger than any.
        log_probabilities: float `(num_nodes, num_tags)`, by node.
    """

    keys: np.ndarray
    log_probabilities: np.ndarray


class _Level(NamedTuple):
    """Contexts of one length.

    Attributes:
        keys: int64 `(num_contexts,)`, as of `TagTables`; the empty context has none.
        parents: their nodes without the last token, likewise.
        counts: of tags, `(num_contexts, num_tags)`.
    """

    keys: np.ndarray
    parents: np.ndarray
    counts: np.ndarray


@keras.saving.register_keras_serializable(package="langzoo")
class NgramTokenClassifier(TokenClassifier):
    """Says how often words had each tag whose tokens, and those around, were the same.

    A context is the last token of a word, then with the one before it, the one behind
    it, and further ones before, as many as the backbone's `order`. Its tags' counts are
    smoothed with the probabilities of the context that is one token shorter, as Witten
    and Bell do, the strength of which is learned on a fifth of the texts; then all of
    them are counted. The backbone is the language model of the texts.

    It learns with `fit(documents, tags)`, in seconds: no other tagger is worth its cost
    that is no better.

    Args:
        backbone: an `NgramBackbone`.
        labels: list of strings. As of `TokenClassifier`.
        preprocessor: likewise.
        **kwargs: those of `TokenClassifier`; `dropout`, of networks, has no effect.

    Call arguments:
        inputs: as those of `TokenClassifier`. The logits are log-probabilities.

    References:
        - [Witten and Bell, 1991](https://doi.org/10.1109/18.87000)
    """

    backbone_cls = AnyOf(NgramBackbone)
    preprocessor_cls = TokenClassifierPreprocessor

    def make_layers(self) -> None:
        self.counts = TagCounts(
            self.backbone.vocabulary_size,
            self.backbone.order,
            len(self.labels),
            name="tag_counts",
        )

    def hidden_states(
        self, inputs: dict[str, Tensor], training: bool | None = False
    ) -> Tensor:
        return self.counts(inputs["token_ids"], inputs["padding_mask"])

    def logits(self, hidden_states: Tensor) -> Tensor:
        return hidden_states

    def compile(self, *args: Any, jit_compile: Any = False, **kwargs: Any) -> None:
        """Configures evaluation, see `TokenClassifier.compile`.

        Args:
            *args: arguments of `TokenClassifier.compile`.
            jit_compile: ignored, as XLA cannot compile the look-up.
            **kwargs: arguments of `TokenClassifier.compile`.
        """
        super().compile(*args, jit_compile=False, **kwargs)

    def fit(
        self, x: Any, y: Any = None, sample_weight: Any = None, **_: Any
    ) -> keras.callbacks.History:
        """Learns from texts, in place of what was learned before.

        Args:
            x: documents: integer arrays of token ids without `<s>` and `</s>`, counted
                whole, whatever the context length. Or what the model takes: strings,
                what the preprocessor makes of them, or a `tf.data.Dataset` of batches.
            y: of documents of token ids, integer arrays of their lengths: the tag's
                number at the last token of each word, and else -1. Of what the model
                takes, as `TokenClassifier` has it.
            sample_weight: of what the preprocessor makes, where there are targets.
            **_: ignored: what is of steps and batches.

        Returns:
            A `History` of one epoch, whose `loss` is the mean cross-entropy, in nats a
            word, of the texts that were held out.

        Raises:
            ValueError: if there are fewer than two documents.
        """
        self._assert_compile_called("fit")
        documents, tags = self._framed(x, y, sample_weight)
        share = min(_HELD_OUT, _MOST_HELD_OUT / max(len(documents), 1))
        is_held = held_out(len(documents), share)
        kept, held = (
            ([documents[i] for i in rows], [tags[i] for i in rows])
            for rows in map(np.flatnonzero, (~is_held, is_held))
        )
        with one_epoch(self) as logs:
            most = self.backbone.max_ngrams
            strength, logs["loss"] = self.counts.weigh(kept, held, most)
            levels = self.counts.count(documents, tags, most)
            self.counts.tables = tables_of(levels, strength)
            self.backbone.adapt(
                np.concatenate(documents),
                np.array([len(document) for document in documents]),
                unpredictable(getattr(self.preprocessor, "tokenizer", None)),
            )
            forget_graphs(self)
        return self.history

    def _framed(self, x: Any, y: Any = None, weights: Any = None) -> _Tagged:
        """Token ids between `<s>` and `</s>`, and as many tags, -1 where none is."""
        if isinstance(x, tf.data.Dataset):
            parts = [self._framed(*keras.utils.unpack_x_y_sample_weight(b)) for b in x]
            documents, tags = (
                [one for part in of for one in part] for of in zip(*parts, strict=True)
            )
            return documents, tags
        if isinstance(x, dict):
            ids, inside, y = (
                np.asarray(part) for part in (x["token_ids"], x["padding_mask"], y)
            )
            y = y if weights is None else np.where(np.asarray(weights) > 0, y, _NONE)
            rows = list(zip(ids, y, inside, strict=True))
            return [ids[i] for ids, _, i in rows], [tags[i] for _, tags, i in rows]
        items = list(x.numpy() if tf.is_tensor(x) else x)
        preprocessor: Any = self.preprocessor
        require(preprocessor is not None, "`fit` needs a preprocessor.")
        if items and isinstance(items[0], (str, bytes)):
            return self._framed(*preprocessor(items, y, weights))
        tokenizer = preprocessor.tokenizer
        start, end = [tokenizer.start_token_id], [tokenizer.end_token_id]
        documents = [np.concatenate([start, ids, end]).astype(int) for ids in items]
        return documents, [np.pad(tags, 1, constant_values=_NONE) for tags in y]


@keras.saving.register_keras_serializable(package="langzoo")
class TagCounts(TableLayer):
    """Log-probabilities of tags at every token, looked up by the tokens around it.

    Args:
        vocabulary_size: int. Number of token ids.
        order: int. Tokens of the longest context.
        num_tags: int.

    Call arguments:
        token_ids: int32 tensor of shape `(batch_size, sequence_length)`.
        padding_mask: bool tensor of that shape.

    Returns:
        A float32 tensor of shape `(batch_size, sequence_length, num_tags)`.
    """

    def __init__(
        self, vocabulary_size: int, order: int, num_tags: int, **kwargs: Any
    ) -> None:
        super().__init__(dtype="float32", **kwargs)
        self._no_token = vocabulary_size
        self._num_tags = num_tags
        # Of the tokens by which contexts get longer, the last one of the word being 0.
        self._places = [0, -1, 1, *range(-2, 1 - order, -1)][:order]

    def empty_tables(self) -> TagTables:
        uniform = np.full((1, self._num_tags), -np.log(self._num_tags))
        return TagTables(np.array([LAST_KEY]), uniform)

    def call(self, token_ids: Tensor, padding_mask: Tensor) -> Tensor:
        _, log_probabilities = map(tf.convert_to_tensor, self._tables)
        return tf.gather(log_probabilities, self.nodes(token_ids, padding_mask))

    def compute_output_shape(self, token_ids_shape: Any, *_: Any) -> Any:
        return *token_ids_shape, self._num_tags

    def nodes(self, token_ids: Tensor, padding_mask: Tensor) -> Tensor:
        """The longest context of each token that was seen, int64 `(B, T)`."""
        keys = tf.convert_to_tensor(self._tables[0])
        tokens = tf.where(padding_mask, tf.cast(token_ids, tf.int64), self._no_token)
        node, seen = tf.zeros_like(tokens), tf.ones_like(padding_mask)
        for place in self._places:
            key = node * (self._no_token + 1) + self._shifted(tokens, place)
            found, seen = find(keys, tf.where(seen, key, _NONE))
            node = tf.where(seen, found + 1, node)
        return node

    def _shifted(self, tokens: Tensor, place: int) -> Tensor:
        """The tokens so many places on."""
        width = abs(place)
        padded = tf.pad(tokens, [[0, 0], [width] * 2], constant_values=self._no_token)
        begin = width + place
        return padded[:, begin : begin + tf.shape(tokens)[1]]

    def count(
        self, documents: list[np.ndarray], tags: list[np.ndarray], most: int
    ) -> list[_Level]:
        """The contexts of each length, the empty one first.

        Args:
            documents: token ids, framed.
            tags: of each token, -1 where there is none.
            most: contexts of a length that are held; of more the rarest give way.

        Raises:
            ValueError: if no token has a tag.
        """
        ids, tag = np.concatenate(documents), np.concatenate(tags)
        lengths = np.array([len(document) for document in documents])
        end = np.repeat(np.cumsum(lengths), lengths)
        begin = end - np.repeat(lengths, lengths)
        at = np.flatnonzero(tag != _NONE)
        require(len(at) > 0, "Some word must have a tag.", documents=len(documents))
        node, none = np.zeros(len(at), np.int64), np.zeros(0, np.int64)
        levels, num_nodes = [_Level(none, none, self._counts(node, tag[at]))], 1
        for place in self._places:
            other = at + place
            inside = (other >= begin[at]) & (other < end[at])
            token = np.where(inside, ids[np.where(inside, other, 0)], self._no_token)
            keys, index, number = np.unique(
                node * (self._no_token + 1) + token,
                return_inverse=True,
                return_counts=True,
            )
            is_kept = np.ones(len(keys), bool)
            if len(keys) > most:
                is_kept = number > np.partition(number, -most - 1)[-most - 1]
            at, index = at[is_kept[index]], index[is_kept[index]]
            index = (np.cumsum(is_kept) - 1)[index]
            keys = keys[is_kept]
            counts = self._counts(index, tag[at])
            levels.append(_Level(keys, keys // (self._no_token + 1), counts))
            node, num_nodes = num_nodes + index, num_nodes + len(keys)
        return levels

    def _counts(self, index: np.ndarray, tag: np.ndarray) -> np.ndarray:
        size = self._num_tags
        rows = int(index.max(initial=-1)) + 1
        counts = np.bincount(index * size + tag, minlength=rows * size)
        return counts.reshape(rows, size)

    def weigh(self, kept: _Tagged, held: _Tagged, most: int) -> tuple[float, float]:
        """The strength of smoothing that suits best, and the loss then.

        Args:
            kept: documents and tags to count.
            held: others, of which the loss is.
            most: as of `count`.
        """
        levels = self.count(*kept, most)
        self.tables = tables_of(levels, 1.0)
        specs = [tf.TensorSpec([None, None], kind) for kind in (tf.int32, tf.bool)]
        function = tf.function(self.nodes, specs, autograph=False)
        found = []
        for begin in range(0, len(held[0]), _BATCH):
            rows = tf.ragged.stack(held[0][begin : begin + _BATCH])
            inside = tf.sequence_mask(rows.row_lengths())
            nodes = function(tf.cast(rows.to_tensor(0), tf.int32), inside)
            found.append(nodes.numpy()[inside.numpy()])
        node, tag = np.concatenate(found), np.concatenate(held[1])
        node, tag = node[tag != _NONE], tag[tag != _NONE]
        losses = {
            strength: -tables_of(levels, strength).log_probabilities[node, tag].mean()
            for strength in _STRENGTHS
        }
        best = min(losses, key=losses.__getitem__)
        return best, float(losses[best])

    def get_config(self) -> dict[str, Any]:
        sizes = {"vocabulary_size": self._no_token, "order": len(self._places)}
        return {**super().get_config(), **sizes, "num_tags": self._num_tags}


def tables_of(levels: list[_Level], strength: float) -> TagTables:
    """The tables of counts, smoothed.

    With n the count of a context and u the number of tags seen in it, a tag has the
    probability `(count + strength u p) / (n + strength u)`, where p is that in the
    context that is one token shorter; at first a half is added to each count.

    Args:
        levels: as `TagCounts.count` gives them.
        strength: how much the shorter context counts.
    """
    base = levels[0].counts + 0.5
    probabilities = base / base.sum()
    for _, parents, counts in levels[1:]:
        weight = strength * (counts > 0).sum(axis=1, keepdims=True)
        shorter = probabilities[parents]
        own = (counts + weight * shorter) / (counts.sum(axis=1, keepdims=True) + weight)
        probabilities = np.concatenate([probabilities, own])
    keys = np.concatenate([level.keys for level in levels[1:]])
    return TagTables(np.append(keys, LAST_KEY), np.log(probabilities))
