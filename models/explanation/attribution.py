"""Why a model says what it says: surprisal, attribution to its inputs, attention.

| function | says of a text | for |
|---|---|---|
| `surprisal` | how unexpected each token is | all families |
| `attribute` | what each token does to the probability of what follows | all families |
| `attention_weights` | where each layer and head looks | `TransformerBackbone` |

Each gives its numbers with the tokens as people read them, and shows itself as a page
(`langzoo.models.explanation.pages`) in a notebook.

None of them is the one true explanation. Attention weights show where information can
flow, not what it does; attributions depend on what "without the token" is taken to be:
here `<unk>` stands in its place.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
import keras_hub
import numpy as np
import tensorflow as tf

from ..backbone import CausalBackbone, Tensor, require
from ..families import family_of_model
from ..tasks.hidden_states import of_sequence, text_inputs
from ..tasks.next_token import log_softmax_of
from ..tasks.scoring import framed
from ..tasks.text_classifier import TextClassifier
from ..tokenizers.display import display_strings
from . import pages

METHODS = ("integrated_gradients", "gradient_x_input", "leave_one_out")
"""What an attribution can be.

`integrated_gradients`: the gradient by each token's embedding, integrated on the
straight line from the embedding of `<unk>` to its own, times their difference
(Gauss-Legendre quadrature). The scores sum to output - baseline; the number of steps is
doubled until they do within the tolerance, up to 512. `gradient_x_input`: the gradient
times the embedding; a first look for the price of one step, and about 0 where the
embeddings are normalized first, as the recurrent families do: their length makes no
difference there. `leave_one_out`: how far the log-probability falls with `<unk>` in
place of that token alone; for every family, also for n-gram models and mixtures, which
have no gradients.

References:
    - [Sundararajan et al., 2017](https://arxiv.org/abs/1703.01365) (integrated
      gradients, completeness)
    - [Shrikumar et al., 2016](https://arxiv.org/abs/1605.01713) (gradient times input)
    - [Li et al., 2016](https://arxiv.org/abs/1612.08220) (leaving one out)
"""
_FIRST_STEPS = 16
_MAX_STEPS = 512
_ROWS = 16
# Of log-probabilities, between a model and its own pieces.
_SAME = 1e-2


class Surprisal(NamedTuple):
    """The tokens of a text and of its end, each with its log-probability in nats."""

    tokens: tuple[str, ...]
    log_probabilities: tuple[float, ...]

    def _repr_html_(self) -> str:
        return pages.surprisal_page([self])._repr_html_()


class Attribution(NamedTuple):
    """What each token of a text does to the log-probability of what follows.

    Or of a label, where it is a classifier's.

    Attributes:
        tokens: `<s>`, and the tokens of the text; of a classifier `</s>`, too.
        scores: float64 `[t]`, in nats: above 0, the token makes the target likelier.
            Those of `<s>` and `</s>` are 0, as they always stand there.
        target: the tokens whose log-probability is explained, or the label.
        output: that log-probability, in nats.
        baseline: the same with `<unk>` in place of every token.
        method: one of `METHODS`.
    """

    tokens: tuple[str, ...]
    scores: np.ndarray
    target: tuple[str, ...]
    output: float
    baseline: float
    method: str

    @property
    def residual(self) -> float:
        """output - baseline - the sum of the scores, in nats.

        For integrated gradients 0, but for the error of the integration; the other
        methods promise nothing.
        """
        return self.output - self.baseline - float(np.sum(self.scores))

    def _repr_html_(self) -> str:
        return pages.attribution_page(self)._repr_html_()


class AttentionMaps(NamedTuple):
    """Where a Transformer looks.

    Attributes:
        tokens: `<s>`, and the tokens of the text.
        weights: float32 `[layers, heads, t, t]`: the weight that position `i`, in the
            last axis but one, gives to position `j`, in the last; 0 for later ones,
            and each row sums to 1.
    """

    tokens: tuple[str, ...]
    weights: np.ndarray

    def _repr_html_(self) -> str:
        return pages.attention_page(self)._repr_html_()


def surprisal(
    model: Any, texts: Sequence[str], *, stride: int | None = None
) -> list[Surprisal]:
    """How unexpected each token of some texts is: -log2 p bits.

    Args:
        model: a `CausalLM` with a preprocessor.
        texts: strings.
        stride: see `langzoo.models.CausalLM.score`, which gives the numbers.

    References:
        - [Hale, 2001](https://aclanthology.org/N01-1021/)
        - [Levy, 2008](https://doi.org/10.1016/j.cognition.2007.05.006)
    """
    tokenizer = _tokenizer(model)
    names = display_strings(tokenizer)
    scores = model.score(list(texts), stride=stride)
    ids = framed(tokenizer, tf.constant(list(texts), tf.string))[:, 1:]
    return [
        Surprisal(tuple(names[token] for token in row), tuple(numbers))
        for row, numbers in zip(ids.to_list(), scores.to_list(), strict=True)
    ]


def attention_weights(model: Any, text: str) -> AttentionMaps:
    """The attention weights of a Transformer of the zoo as it reads a text.

    They are those of the model's own call: weights times values, through the output
    projection, are what the attention layer adds.

    Args:
        model: a `CausalLM` with a `TransformerBackbone`.
        text: a string that fits into the context.

    Raises:
        ValueError: if the model is another one, or the text is too long.

    References:
        - [Vaswani et al., 2017](https://arxiv.org/abs/1706.03762), section 3.2
        - [Jain and Wallace, 2019](https://arxiv.org/abs/1902.10186), on what attention
          does not explain
    """
    require(
        family_of_model(model).shows_attention,
        "Attention maps are of a `TransformerBackbone`.",
        backbone=type(model.backbone).__name__,
    )
    ids = _ids(model, text)
    _require_fits(model, len(ids))
    weights = model.backbone.attention_weights(tf.constant([ids], tf.int32))[0]
    names = display_strings(_tokenizer(model))
    return AttentionMaps(
        tuple(names[token] for token in ids),
        keras.ops.convert_to_numpy(keras.ops.cast(weights, "float32")),
    )


def attribute(
    model: Any,
    text: str,
    target: str | None = None,
    *,
    method: str | None = None,
    tolerance: float = 0.01,
) -> Attribution:
    """What each token of a text does to the log-probability of what follows it.

    Args:
        model: a `CausalLM` with a preprocessor, a KerasHub model of the zoo, or a
            `TextClassifier`.
        text: a string that fits into the context with the target; a classifier cuts it.
        target: string that follows the text, or `None` for the likeliest next token.
            Where a token reaches from the text into the target, it is the target's. Of
            a classifier the label, or `None` for the likeliest.
        method: one of `METHODS`. Defaults to `None`: integrated gradients, and for an
            n-gram model or a mixture `leave_one_out`.
        tolerance: float. Of the sum of integrated gradients, in nats, and for
            differences above one nat as a share of them.

    Raises:
        ValueError: if the method is unknown or not for this model, the target is
            empty, or no label of the model, or the text is too long.

    Example:
    ```python
    attribution = attribute(model, "The cat sat on the", " mat")
    for token, score in zip(attribution.tokens, attribution.scores):
        print(f"{score:+.2f} nats  {token!r}")
    ```
    """
    method = _method_for(model, method)
    question = _question(model, text, target)
    absent = question.with_unknown(question.places)
    output, baseline = question.log_probabilities([question.ids, absent])
    if method == "leave_one_out":
        scores = question.left_out(output)
    else:
        gradients = _Gradients(question, absent)
        require(
            abs(gradients.output - output) < _SAME,
            "The model does more between embeddings and logits than its backbone "
            "says: use 'leave_one_out'.",
            model=type(model).__name__,
        )
        if method == "gradient_x_input":
            scores = gradients.times_input()
        else:
            scores = gradients.integrated(output - baseline, tolerance)
    names = display_strings(_tokenizer(model))
    return Attribution(
        tuple(names[token] for token in question.ids[: question.length]),
        scores,
        question.named(names),
        float(output),
        float(baseline),
        method,
    )


def _method_for(model: Any, method: str | None) -> str:
    has_gradients = family_of_model(model).learns_by_gradient
    method = method or (METHODS[0] if has_gradients else "leave_one_out")
    require(method in METHODS, f"`method` must be one of {METHODS}.", method=method)
    require(
        method == "leave_one_out" or has_gradients,
        "A model that counts, or is of several, has no gradients: use 'leave_one_out'.",
        method=method,
    )
    return method


class _Question(NamedTuple):
    """What is asked of a model: how likely targets are after `length` tokens.

    `ids` are those tokens and all targets but the last.
    """

    model: Any
    ids: list[int]
    length: int
    targets: list[int]

    @property
    def places(self) -> range:
        """Where the tokens of the text stand."""
        return range(1, self.length)

    def named(self, names: Sequence[str]) -> tuple[str, ...]:
        """The targets by their names, given those of all tokens."""
        return tuple(names[token] for token in self.targets)

    def with_unknown(self, places: Any) -> list[int]:
        unknown = int(_tokenizer(self.model).unk_token_id)
        changed = set(places)
        return [
            unknown if place in changed else token
            for place, token in enumerate(self.ids)
        ]

    def left_out(self, output: float) -> np.ndarray:
        """How far the output falls without each token, float64 `[length]`."""
        rows = [self.with_unknown([place]) for place in self.places]
        scores = np.zeros(self.length)
        scores[self.places] = output - self.log_probabilities(rows)
        return scores

    def log_probabilities(self, rows: list[list[int]]) -> np.ndarray:
        """That of the targets after each row of ids, float64 `[rows]`."""
        parts = (rows[start : start + _ROWS] for start in range(0, len(rows), _ROWS))
        found = [_float64(self.of_rows(tf.constant(part, tf.int32))) for part in parts]
        return np.concatenate([*found, np.zeros(0)])

    def of_rows(self, token_ids: Tensor) -> Tensor:
        """The same of some rows `[n, t]` at once, `[n]`."""
        following = [*self.ids[1 : self.length], *self.targets]
        targets = tf.broadcast_to(following, tf.shape(token_ids))
        inputs = _inputs_of(token_ids)
        scores = self.model.token_log_probabilities(inputs, targets)
        wanted = tf.cast(scores[:, self.length - 1 :], tf.float64)
        return tf.reduce_sum(wanted, axis=1)

    def of_states(self, hidden: Tensor, logits: Callable[[Tensor], Tensor]) -> Tensor:
        """That of the targets by hidden states `[rows, t, d]`, float32 `[rows]`."""
        shape = (tf.shape(hidden)[0], len(self.targets))
        targets = tf.broadcast_to(self.targets, shape)
        found = logits(hidden[:, self.length - 1 :])
        return tf.reduce_sum(log_softmax_of(found, targets), axis=1)


class _LabelQuestion(_Question):
    """What is asked of a classifier: how likely a label is of a text.

    `targets` is the label's number.
    """

    @property
    def places(self) -> range:
        return range(1, self.length - 1)

    def named(self, names: Sequence[str]) -> tuple[str, ...]:
        return tuple(self.model.labels[number] for number in self.targets)

    def of_rows(self, token_ids: Tensor) -> Tensor:
        return self._of_logits(self.model(_inputs_of(token_ids), training=False))

    def of_states(self, hidden: Tensor, logits: Callable[[Tensor], Tensor]) -> Tensor:
        del logits  # Of the next token.
        mask = tf.ones(tf.shape(hidden)[:2], tf.bool)
        return self._of_logits(self.model.head(self.model.pooler(hidden, mask)))

    def _of_logits(self, logits: Tensor) -> Tensor:
        (number,) = self.targets
        several = self.model.multi_label
        logs = tf.math.log_sigmoid(logits) if several else tf.nn.log_softmax(logits)
        return logs[:, number]


class _Gradients:
    """Gradients of the targets' log-probability by the embeddings of the text.

    They are those of each layer that the tokens go through, side by side.
    """

    def __init__(self, question: _Question, absent: list[int]) -> None:
        backbone = question.model.backbone
        self._question = question
        layers, self._logits = _ends(backbone)
        # The graph of the backbone from its embeddings on; positions and masks may
        # still depend on the ids.
        self._rest = keras.Model(
            [[layer.output for layer in layers], backbone.input],
            of_sequence(backbone.output),
        )
        looked_up = keras.Model(backbone.input, [layer.output for layer in layers])
        ids = tf.constant([question.ids, absent], tf.int32)
        self._ids = ids[:1]
        # Of a single one Keras gives no list.
        inputs = text_inputs(backbone, _inputs_of(ids))
        vectors = keras.tree.flatten(looked_up(inputs, training=False))
        self._shapes = [vector.shape[2:] for vector in vectors]
        flat = [tf.reshape(vector, (*ids.shape, -1)) for vector in vectors]
        self._present, self._absent = tf.unstack(tf.concat(flat, axis=-1))
        self.output = float(self._log_probability(self._present[tf.newaxis])[0])

    def times_input(self) -> np.ndarray:
        """The gradient times the embedding, summed, float64 `[length]`."""
        gradient = self._gradient(self._present[tf.newaxis])[0]
        return self._scores(gradient * _float64(self._present))

    def integrated(self, difference: float, tolerance: float) -> np.ndarray:
        """Integrated gradients, float64 `[length]`, that sum to the difference."""
        steps = _FIRST_STEPS
        while True:
            scores = self._integral(steps)
            missing = abs(difference - np.sum(scores))
            if missing <= tolerance * max(1.0, abs(difference)) or steps >= _MAX_STEPS:
                return scores
            steps *= 2

    def _integral(self, steps: int) -> np.ndarray:
        places, weights = np.polynomial.legendre.leggauss(steps)
        shares = (places + 1) / 2
        way = _float64(self._present) - _float64(self._absent)
        mean = tf.zeros_like(way)
        for start in range(0, steps, _ROWS):
            share = shares[start : start + _ROWS, np.newaxis, np.newaxis]
            points = _float64(self._absent) + share * way
            gradients = self._gradient(tf.cast(points, self._present.dtype))
            weight = weights[start : start + _ROWS] / 2
            mean += tf.tensordot(weight, gradients, axes=1)
        products = mean * way
        scores = self._scores(products)
        # N-grams that end in a target and begin in the text hold its last token.
        scores[-1] += tf.reduce_sum(products[self._question.length :]).numpy()
        return scores

    def _gradient(self, embeddings: Tensor) -> Tensor:
        """By each row of embeddings `[rows, t, d]`, float64."""
        with tf.GradientTape() as tape:
            tape.watch(embeddings)
            total = tf.reduce_sum(self._log_probability(embeddings))
        return _float64(tape.gradient(total, embeddings))

    def _log_probability(self, embeddings: Tensor) -> Tensor:
        """Of the targets, float32 `[rows]`."""
        shape = (tf.shape(embeddings)[0], len(self._question.ids))
        ids = tf.broadcast_to(self._ids, shape)
        widths = [shape.num_elements() for shape in self._shapes]
        parts = [
            tf.reshape(part, (*shape, *each))
            for part, each in zip(
                tf.split(embeddings, widths, axis=-1), self._shapes, strict=True
            )
        ]
        inputs = text_inputs(self._question.model.backbone, _inputs_of(ids))
        hidden = self._rest([parts, inputs], training=False)
        return self._question.of_states(hidden, self._logits)

    def _scores(self, products: Tensor) -> np.ndarray:
        # What stands behind the text are targets: they are the same in both inputs.
        scores = tf.reduce_sum(products, axis=-1).numpy()[: self._question.length]
        outside = np.setdiff1d(np.arange(len(scores)), self._question.places)
        scores[outside] = 0.0
        return scores


def _ends(backbone: Any) -> tuple[list[Any], Callable[[Tensor], Tensor]]:
    """The layers that tokens go through first, and what makes logits of the states."""
    if isinstance(backbone, CausalBackbone):
        return backbone.embedding_layers, backbone.logits
    embedding = backbone.token_embedding  # as in those of KerasHub
    return [embedding], functools.partial(embedding, reverse=True)


def _question(model: Any, text: str, target: str | None) -> _Question:
    if isinstance(model, TextClassifier):
        return _label_question(model, text, target)
    require(
        isinstance(model, keras_hub.models.CausalLM),
        "What speaks for an answer is known of text classifiers and language models "
        "that go on with a text.",
        model=type(model).__name__,
    )
    ids = _ids(model, text)
    if target is None:
        _require_fits(model, len(ids))
        return _Question(model, ids, len(ids), [_likeliest(model, ids)])
    whole = _ids(model, text + target)
    shared = 0
    while shared < min(len(ids), len(whole)) and ids[shared] == whole[shared]:
        shared += 1
    targets = whole[shared:]
    require(bool(targets), "`target` must not be empty.", target=target)
    _require_fits(model, len(whole) - 1)
    return _Question(model, whole[:-1], shared, targets)


def _label_question(model: Any, text: str, target: str | None) -> _LabelQuestion:
    _tokenizer(model)  # There must be one.
    features = model.preprocessor([text])
    ids = features["token_ids"][features["padding_mask"]].numpy().tolist()
    if target is None:
        target = next(iter(model.classify(text)))
    require(
        target in model.labels,
        f"`target` must be one of {', '.join(model.labels)}.",
        target=target,
    )
    number = model.labels.index(target)
    return _LabelQuestion(model, ids, len(ids), [number])


def _likeliest(model: Any, ids: list[int]) -> int:
    logits = model(_inputs_of(tf.constant([ids], tf.int32)), training=False)
    logits = keras.ops.convert_to_numpy(keras.ops.cast(logits[0, -1], "float32")).copy()
    tokenizer = _tokenizer(model)
    never = {tokenizer.pad_token_id, tokenizer.unk_token_id, tokenizer.start_token_id}
    logits[[int(token) for token in never - {tokenizer.end_token_id}]] = -np.inf
    return int(np.argmax(logits[: tokenizer.vocabulary_size()]))


def _ids(model: Any, text: str) -> list[int]:
    """`<s>` and the ids of a text."""
    return framed(_tokenizer(model), tf.constant([text]))[0, :-1].numpy().tolist()


def _require_fits(model: Any, length: int) -> None:
    require(
        length <= model.context_length,
        f"The text must fit into the context of {model.context_length} tokens.",
        tokens=length,
    )


def _tokenizer(model: Any) -> Any:
    require(
        model.preprocessor is not None,
        "A model without a preprocessor cannot take strings.",
        preprocessor=model.preprocessor,
    )
    return model.preprocessor.tokenizer


def _inputs_of(token_ids: Tensor) -> dict[str, Tensor]:
    """The inputs of a model: int32 tokens `[rows, t]`, all real."""
    return {"token_ids": token_ids, "padding_mask": tf.ones_like(token_ids, tf.bool)}


def _float64(tensor: Tensor) -> Tensor:
    return tf.cast(tensor, tf.float64)
