"""What families share: the contract of backbones, and how presets find them."""

from __future__ import annotations

import contextlib
import contextvars
import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import keras_hub
import tensorflow as tf
from keras import ops

from .arguments import signature_of, sizes_of, with_arguments

Tensor = Any
Cache = Any

_served = contextvars.ContextVar("served_graphs", default=False)
_portable = contextvars.ContextVar("portable_graphs", default=False)


@contextlib.contextmanager
def served_graphs() -> Iterator[None]:
    """Within it, graphs are made for a model server's loop that generates.

    It uses each cache once, which a step may so overwrite: a copy of all keys and
    values is spared. And XLA does not compile it, which needs to know shapes: a prompt
    is read as far as it goes, whatever room for new tokens is behind it.
    """
    token = _served.set(True)
    try:
        yield
    finally:
        _served.reset(token)


def is_served() -> bool:
    """Whether a graph is made for a model server, see `served_graphs()`."""
    return _served.get()


@contextlib.contextmanager
def portable_graphs() -> Iterator[None]:
    """Within it, graphs are made that a CPU can run, whatever device makes them."""
    token = _portable.set(True)
    try:
        yield
    finally:
        _portable.reset(token)


def is_portable() -> bool:
    """Whether a graph is made for any device, see `portable_graphs()`."""
    return _portable.get()


def prompt_of(token_ids: Tensor, length: Tensor) -> Tensor:
    """The columns that a prefill reads: in a served graph the first `length`, or one.

    (Not all ops are made for nothing at all.)
    """
    return token_ids[:, : tf.maximum(length, 1)] if is_served() else token_ids


class AnyOf:
    """Stands as `backbone_cls` where one class serves backbones of many classes.

    `from_preset` of a KerasHub base class picks the subclass whose `backbone_cls`
    equals the class that the preset names, so KerasHub has a task class, a
    preprocessor class and a tokenizer class for every architecture. Ours do not
    depend on the architecture; this object equals every subclass of `bases`.

    It is false as a truth value because KerasHub asks a true `backbone_cls` for its
    built-in presets, and we have none.

    Args:
        *bases: classes. The base classes whose subclasses are served.
    """

    def __init__(self, *bases: type) -> None:
        self.bases = bases

    def __eq__(self, other: object) -> bool:
        return isinstance(other, type) and issubclass(other, self.bases)

    def __hash__(self) -> int:
        return hash(self.bases)

    def __bool__(self) -> bool:
        return False


class FamilyBackbone(keras_hub.models.Backbone):
    """Base class of the families' backbones: made of the settings of a family.

    A class names its `family`, whose settings are the constructor's arguments, by
    position or keyword: a subclass has their signature, they are its attributes, and
    `get_config()` gives them back. It implements `make_layers()` and `run_inputs()`,
    and has an attribute `hidden_dim`, the width of the hidden states.

    Args:
        vocabulary_size: int. Number of token ids.
        **settings: the hyperparameters of the family.

    Attributes:
        family: the `Family` that the class is the backbone of.
        token_embedding: a layer that maps ids to vectors, and with `reverse=True`
            hidden states to logits.
        logit_softcap: float or `None`, the bound of the logits; a family has it by a
            setting of that name.

    Raises:
        ValueError: if an argument cannot be, in one line.
    """

    family: Any
    vocabulary_size: int
    hidden_dim: int
    max_sequence_length: int
    logit_softcap: float | None = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "family" in vars(cls):
            cls.__signature__ = signature_of(cls.family)
            cls.__doc__ = with_arguments(cls.__doc__, cls.family)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        bound = inspect.signature(type(self)).bind(*args, **kwargs)
        bound.apply_defaults()
        given = bound.arguments
        others, dtype = given.pop("kwargs"), given.pop("dtype")

        # === Config ===
        # First, as making the layers reads it.
        sizes = {name: given.pop(name) for name in sizes_of(self.family)}
        for name, size in sizes.items():
            setattr(self, name, size)
        length = {"context_length": self.max_sequence_length}
        # Its range is for configurations; here any length can be.
        settings = self.family.settings_of(**given).model_copy(update=length).resolved()
        for name in self.family.hyperparameters():
            setattr(self, name, getattr(settings, name))

        # === Layers ===
        self.make_layers(settings, dtype)

        # === Functional Model ===
        # It builds the layers.
        inputs = self.make_inputs()
        outputs = self.run_inputs(inputs)
        super().__init__(inputs=inputs, outputs=outputs, dtype=dtype, **others)

    def get_config(self) -> dict[str, Any]:
        names = (*sizes_of(self.family), *self.family.hyperparameters())
        return {
            **super().get_config(),
            **{name: getattr(self, name) for name in names},
        }

    @property
    def embedding_layers(self) -> list[keras.layers.Layer]:
        """The layers through which the outputs depend on the tokens, and no others."""
        return [self.token_embedding]

    @property
    def trains_on_cudnn(self) -> bool:
        """Whether a training step calls cuDNN, if XLA does not compile it."""
        return False

    def enable_lora(
        self, rank: int, target_layer_names: Sequence[str] | None = None
    ) -> None:
        """Freezes all weights, and gives some layers a change of low rank to learn.

        Args:
            rank: int. Rank of the change.
            target_layer_names: exact names of layers. Defaults to `None`, those of
                `default_lora_layer_names()`.

        Raises:
            ValueError: if a name that is given, or all of the default ones, are of no
                layer that can have it; nothing is frozen then.

        References:
            - [Hu et al., 2021](https://arxiv.org/abs/2106.09685)
        """
        known = {
            layer.name
            for layer in self._flatten_layers(include_self=False)
            if layer.weights and hasattr(layer, "enable_lora")
        }
        defaults = set(self.default_lora_layer_names())
        wanted = set(target_layer_names or ())
        require(
            wanted <= known if wanted else bool(defaults & known),
            f"LoRA must have layers of {type(self).__name__} to change: by name one of "
            f"{sorted(known)}; by default there is none for every family.",
            target_layer_names=target_layer_names,
        )
        super().enable_lora(rank, target_layer_names)

    def make_layers(self, settings: Any, dtype: Any) -> None:
        """Sets `token_embedding` and the other layers as attributes.

        Args:
            settings: the family's, resolved.
            dtype: string or `keras.DTypePolicy`, for each layer.
        """
        raise NotImplementedError

    def make_inputs(self) -> dict[str, keras.KerasTensor]:
        """The symbolic inputs."""
        raise NotImplementedError

    def run_inputs(self, inputs: dict[str, Tensor]) -> Any:
        """Calls the layers on symbolic inputs, and returns the outputs."""
        raise NotImplementedError

    def logits(self, hidden_states: Tensor) -> Tensor:
        """What the hidden states say of the next token, by the output weights.

        Args:
            hidden_states: tensor of shape `(..., hidden_dim)`.

        Returns:
            A float32 tensor of shape `(..., vocabulary_size)`.
        """
        return self.finish_logits(self.token_embedding(hidden_states, reverse=True))

    def finish_logits(self, products: Tensor) -> Tensor:
        """What is done to the products of hidden states and output weights.

        Args:
            products: tensor of shape `(..., vocabulary_size)`.

        Returns:
            The logits, float32, of that shape.

        References:
            - [Gemma Team, 2024](https://arxiv.org/abs/2408.00118) (soft-capping)
        """
        logits = ops.cast(products, "float32")
        if self.logit_softcap is None:
            return logits
        return self.logit_softcap * ops.tanh(logits / self.logit_softcap)


class CausalBackbone(FamilyBackbone):
    """Base class of backbones that read a text and know what is before: with a cache.

    A backbone maps `{"token_ids": int32 (batch_size, sequence_length),
    "padding_mask": bool (batch_size, sequence_length)}` to hidden states
    `(batch_size, sequence_length, hidden_dim)`, and the state at a position depends
    on the tokens up to that position only. Padding is on the right, so causality
    alone keeps it away from real positions, and `padding_mask` is not read.

    A subclass implements, besides what `FamilyBackbone` asks for, `run_layers()` in
    place of `run_inputs()`, `empty_cache()` and `call_with_cache()`, and overrides
    `prefill()` if it can consume many tokens faster than one by one. One whose
    positions see later ones, too, has no cache: its family `fills_gaps`, and it
    implements `run_inputs()`.

    Args:
        vocabulary_size: int. Number of token ids.
        **settings: the hyperparameters of the family.
    """

    def make_inputs(self) -> dict[str, keras.KerasTensor]:
        return token_inputs()

    def run_inputs(self, inputs: dict[str, Tensor]) -> Tensor:
        """As `run_layers`, for a backbone that must know where padding is."""
        return self.run_layers(inputs["token_ids"])

    def run_layers(self, token_ids: Tensor) -> Tensor:
        """Calls the layers on symbolic token ids.

        Args:
            token_ids: int32 tensor of shape `(batch_size, sequence_length)`.

        Returns:
            The hidden states, `(batch_size, sequence_length, hidden_dim)`.
        """
        raise NotImplementedError

    def empty_cache(self, batch_size: Tensor, max_length: Tensor) -> Cache:
        """The cache before any token.

        Args:
            batch_size: int, or int32 scalar tensor.
            max_length: int, or int32 scalar tensor. Positions to make room for.

        Returns:
            A nest of tensors, each with leading dimension `batch_size`. Their shapes
            are the same after any number of tokens.
        """
        raise NotImplementedError

    def call_with_cache(
        self, token_ids: Tensor, cache: Cache, cache_update_index: Tensor
    ) -> tuple[Tensor, Cache]:
        """Consumes one token a row.

        Args:
            token_ids: int32 tensor of shape `(batch_size, 1)`.
            cache: what `empty_cache()`, `prefill()` or this method returned.
            cache_update_index: int32 scalar tensor, the position of the tokens.

        Returns:
            The hidden states, of shape `(batch_size, 1, hidden_dim)`, and the cache.
        """
        raise NotImplementedError

    def prefill(self, token_ids: Tensor, length: Tensor) -> Cache:
        """The cache after the first `length` columns; later columns have no influence.

        Args:
            token_ids: int32 tensor of shape `(batch_size, max_length)`.
            length: int32 scalar tensor, from 0 to `max_length`.

        Returns:
            A cache with room for `max_length` positions.
        """
        shape = ops.shape(token_ids)
        cache = self.empty_cache(shape[0], shape[1])
        return read_in_turn(self.call_with_cache, token_ids, length, cache)


def read_in_turn(
    step: Callable[[Tensor, Cache, Tensor], tuple[Tensor, Cache]],
    token_ids: Tensor,
    length: Tensor,
    cache: Cache,
) -> Cache:
    """The cache after `length` columns, one by one.

    Args:
        step: as `CausalBackbone.call_with_cache`.
        token_ids: int32 tensor of shape `(batch_size, max_length)`.
        length: int32 scalar tensor, from 0 to `max_length`.
        cache: that before any of them.
    """
    length = ops.cast(length, "int32")

    def consume(index: Tensor, cache: Cache) -> tuple[Tensor, Cache]:
        column = ops.take(token_ids, index, axis=1)[:, None]
        _, cache = step(column, cache, index)
        return index + 1, cache

    _, cache = ops.while_loop(
        lambda index, cache: index < length, consume, (ops.zeros((), "int32"), cache)
    )
    return cache


def require(condition: bool, what: str, **received: object) -> None:
    """Raises ValueError with `what` and the received values unless `condition`."""
    if not condition:
        values = ", ".join(f"{name}={value!r}" for name, value in received.items())
        raise ValueError(f"{what} Received: {values}")


def token_inputs() -> dict[str, keras.KerasTensor]:
    """The symbolic inputs, each `(batch_size, sequence_length)`."""
    return {
        "token_ids": keras.Input((None,), dtype="int32", name="token_ids"),
        "padding_mask": keras.Input((None,), dtype="bool", name="padding_mask"),
    }


def built(layer: keras.layers.Layer, input_dim: int) -> keras.layers.Layer:
    """Builds a layer for inputs `(batch_size, sequence_length, input_dim)`."""
    layer.build((None, None, input_dim))
    return layer


def holds_matrices(kernel: Any, widths: Sequence[int]) -> None:
    """Says that a kernel holds matrices of such widths side by side.

    An optimizer that takes matrices as wholes, as `Muon` does, keeps them apart.
    """
    kernel.matrix_widths = tuple(widths)


def matrix_widths(kernel: Any) -> tuple[int, ...]:
    """The widths of the matrices in a kernel; none where it is a single one."""
    return getattr(kernel, "matrix_widths", ())


def learns_by_rows(table: Any) -> None:
    """Says of which embeddings a batch has but few, so that others keep what they have.

    An optimizer that updates rows by themselves, as `AdamW` does, passes over the rest.
    """
    table.learns_by_rows = True


def is_by_rows(table: Any) -> bool:
    """Whether `learns_by_rows` was said of a variable."""
    return getattr(table, "learns_by_rows", False)


def normal_initializer(stddev: float = 0.02) -> keras.initializers.Initializer:
    """GPT-2's initializer: normal, by default of standard deviation 0.02."""
    return keras.initializers.RandomNormal(stddev=stddev)
