"""A mixture of models as a task: its members learn, then their weights."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from ...backbone import AnyOf, Tensor
from ...learning.holding_out import held_out
from ...learning.recipe import COMMON
from ...references import load
from ...tasks import CAUSAL_LM
from ...tasks.causal_lm import CausalLM, CausalLMPreprocessor
from ...tasks.scoring import is_text
from ..one_epoch import forget_graphs, one_epoch
from .backbone import MixtureBackbone
from .gate import fit_gate


class Figures(NamedTuple):
    """What a mixture and its members make of a text.

    Attributes:
        loss: Of the mixture, in nats a token.
        losses: Of each member.
        weights: That each member has, on average.
    """

    loss: float
    losses: list[float]
    weights: list[float]


@keras.saving.register_keras_serializable(package="langzoo")
class MixtureCausalLM(CausalLM):
    """A language model that combines others.

    It is a `CausalLM` like any other, but `fit` lets each member learn from a part of
    the documents as it does alone, and then learns the weights from the rest.

    Args:
        backbone: a `MixtureBackbone`.
        preprocessor: a `CausalLMPreprocessor`, or `None` if inputs are always token
            ids. Defaults to `None`.
        **kwargs: `name`, and `compile=False` to leave the model uncompiled.

    Call arguments:
        inputs: as those of `CausalLM`. The logits are log-probabilities.

    Example:
    ```python
    members = [{"family": "lstm", "hidden_dim": 64}, {"family": "ngram", "order": 4}]
    model = build_causal_lm("mixture", ByteTokenizer(), 64, members=members)
    model.fit(["to be, or not to be", "that is the question"], epochs=4)
    model.generate("to be", max_length=32)
    ```
    """

    backbone_cls = AnyOf(MixtureBackbone)
    preprocessor_cls = CausalLMPreprocessor

    def compile(
        self, optimizer: Any = "auto", *args: Any, jit_compile: bool = False, **kw: Any
    ) -> None:
        """Configures training and generation, see `CausalLM.compile`.

        Args:
            optimizer: of each member that learns by gradient. By default each has that
                of its family's recipe.
            *args: arguments of `CausalLM.compile`.
            jit_compile: bool. Whether XLA compiles what it can: not members that count.
            **kw: arguments of `CausalLM.compile`.
        """
        self._given = None if optimizer == "auto" else optimizer
        layers = self.backbone._flatten_layers()
        jit_compile = bool(jit_compile) and all(layer.supports_jit for layer in layers)
        super().compile(optimizer, *args, jit_compile=jit_compile, **kw)

    @property
    def parts(self) -> list[CausalLM]:
        """The members as models of their own; their weights are those in this one."""
        parts = []
        for member in self.backbone.mixture.members:
            cls = load(member.family.tasks.get(CAUSAL_LM.name, CAUSAL_LM.model))
            parts.append(cls(backbone=member, preprocessor=self.preprocessor))
        return parts

    def fit(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        epochs: int = 1,
        verbose: Any = "auto",
        sample_weight: Any = None,
    ) -> keras.callbacks.History:
        """Learns from documents: first the members do, then their weights are learned.

        Each so many documents are held out for the weights (`held_out`), of which
        members that count learn afterwards.

        Args:
            x: a list of strings; without a preprocessor a dictionary of windows; or a
                `tf.data.Dataset` of either, batched or not.
            y: the next tokens, if `x` is a dictionary.
            batch_size: int. Of members that learn by gradient.
            epochs: int. Likewise.
            verbose: see `keras.Model.fit`.
            sample_weight: where `y` is real, if `x` is a dictionary.

        Returns:
            A `History` of one epoch, whose `loss` is that of what is held out, in nats
            a token.

        Raises:
            ValueError: if there are fewer than two documents.
        """
        self._assert_compile_called("fit")
        rows = _rows(x, y, sample_weight)
        is_held = held_out(len(keras.tree.flatten(rows)[0]), self.backbone.held_out)
        how = {"batch_size": batch_size, "epochs": epochs, "verbose": verbose}
        counting = []
        for part in self.parts:
            if part.backbone.family.learns_by_gradient:
                part.compile(self._optimizer_of(part))
                part.fit(**_taken(rows, ~is_held), **how)
            else:
                part.fit(**_taken(rows, ~is_held))
                counting.append(part)
        rest = tuple(_taken(rows, is_held).values())
        batches = tf.data.Dataset.from_tensor_slices(rest).batch(batch_size or 32)
        if self.preprocessor is not None:
            batches = batches.map(self.preprocessor)
        with one_epoch(self) as logs:
            logs["loss"] = self.fit_weights(batches)
            for part in counting:
                part.fit(**_taken(rows, is_held | True))
            forget_graphs(self)
        return self.history

    def fit_weights(self, batches: Iterable[Any]) -> float:
        """Learns the weights alone.

        Args:
            batches: tuples `(x, y, sample_weight)`, as the preprocessor makes them, of
                text that no member has learned from.

        Returns:
            The cross-entropy on them, in nats a token.
        """
        mixture, known, said = self.backbone.mixture, [], []

        @tf.function(reduce_retracing=True, autograph=False)
        def read(token_ids: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
            log_probabilities = mixture.log_probabilities(token_ids)
            features = mixture.gate.features(log_probabilities)
            return features, _at(log_probabilities, targets)

        for x, y, sample_weight in batches:
            real = np.asarray(sample_weight) > 0
            features, scores = read(x["token_ids"], y)
            known.append(features.numpy()[real])
            said.append(scores.numpy()[real])
        return fit_gate(mixture.gate, np.concatenate(known), np.concatenate(said))

    def figures(self, batches: Iterable[Any]) -> Figures:
        """What the mixture and its members make of a text, token by token.

        Args:
            batches: tuples `(x, y, sample_weight)`, as of `fit_weights`.
        """
        mixture = self.backbone.mixture

        @tf.function(reduce_retracing=True, autograph=False)
        def sums(token_ids: Tensor, targets: Tensor, real: Tensor) -> list[Tensor]:
            log_probabilities = mixture.log_probabilities(token_ids)
            weights = mixture.gate(log_probabilities)
            scores = _at(log_probabilities, targets)
            loss = -ops.logsumexp(weights + scores, axis=-1, keepdims=True)
            columns = tf.concat([tf.ones_like(loss), loss, -scores, tf.exp(weights)], 2)
            real = tf.cast(real, tf.float64)[..., tf.newaxis]
            return tf.reduce_sum(tf.cast(columns, tf.float64) * real, axis=[0, 1])

        rows = [sums(x["token_ids"], y, weight).numpy() for x, y, weight in batches]
        tokens, *totals = np.sum(rows, axis=0)
        loss, *others = (float(total / tokens) for total in totals)
        count = len(others) // 2
        return Figures(loss, others[:count], others[count:])

    def token_log_probabilities(
        self, inputs: dict[str, Tensor], target_ids: Tensor
    ) -> Tensor:
        """What the logits say of given tokens; only these are combined.

        Args:
            inputs: the inputs of the model; of these only `token_ids` is read.
            target_ids: integer tensor of shape `(batch_size, sequence_length)`.

        Returns:
            A float32 tensor of that shape, in nats.
        """
        mixture = self.backbone.mixture
        log_probabilities = mixture.log_probabilities(inputs["token_ids"])
        weights = mixture.gate(log_probabilities)  # (B, T, K)
        return ops.logsumexp(weights + _at(log_probabilities, target_ids), axis=-1)

    def _optimizer_of(self, part: CausalLM) -> keras.optimizers.Optimizer:
        if self._given is None:
            return (part.backbone.family.recipe or COMMON).make_optimizer()
        optimizer = keras.optimizers.get(self._given)
        return type(optimizer).from_config(optimizer.get_config())


def _at(log_probabilities: Tensor, targets: Tensor) -> Tensor:
    """What each member says of given tokens: `(B, T, K)` of `(B, T, K, V)`."""
    members = ops.shape(log_probabilities)[2]
    places = ops.repeat(ops.cast(targets, "int32")[..., None], members, axis=-1)
    return ops.take_along_axis(log_probabilities, places[..., None], axis=-1)[..., 0]


def _rows(*given: Any) -> dict[str, Any]:
    """Arguments of `fit` by name, as arrays of all rows."""
    elements = [keras.utils.pack_x_y_sample_weight(*given)]
    if isinstance(given[0], tf.data.Dataset):
        elements = list(given[0].as_numpy_iterator())
    names = ("x", "y", "sample_weight")
    unpacked = [keras.utils.unpack_x_y_sample_weight(element) for element in elements]
    columns = {
        name: values
        for name, values in zip(names, zip(*unpacked, strict=True), strict=True)
        if values[0] is not None
    }
    rows = {name: _concatenated(values) for name, values in columns.items()}
    if "y" in rows:
        rows.setdefault("sample_weight", np.ones(rows["y"].shape, "float32"))
    return rows


def _concatenated(values: Sequence[Any]) -> Any:
    if isinstance(values[0], dict):
        return {key: _concatenated([one[key] for one in values]) for key in values[0]}
    return np.concatenate([np.atleast_1d(_array(one)) for one in values])


def _array(value: Any) -> np.ndarray:
    value = value.numpy() if tf.is_tensor(value) else value
    return np.array(value, object if is_text(value) else None)


def _taken(rows: dict[str, Any], wanted: np.ndarray) -> dict[str, Any]:
    """Some of the rows; strings in a list."""

    def take(array: np.ndarray) -> Any:
        some = array[wanted]
        return some.tolist() if some.dtype == object else some

    return {
        name: {key: take(one) for key, one in values.items()}
        if isinstance(values, dict)
        else take(values)
        for name, values in rows.items()
    }
