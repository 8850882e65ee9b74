"""A model whose parts are traced once for all signatures of an export."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from ...models.backbone import served_graphs
from ...models.tasks.causal_lm import CausalLM
from ...models.tasks.in_order import has_hidden_states
from ...models.tasks.next_token import log_softmax_of
from .output_projection import OutputProjection


class _TracedBackbone:
    """Attribute by attribute a backbone; its call is a graph that signatures share."""

    def __init__(self, backbone: Any) -> None:
        self._backbone = backbone
        self._graph = _graph(lambda inputs: backbone(inputs, training=False))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backbone, name)

    def __call__(self, inputs: dict[str, tf.Tensor], training: bool = False) -> Any:
        return self._graph(inputs)


class TracedModel:
    """Attribute by attribute a model; its calls are graphs that signatures share.

    A signature is a graph of its own, and tracing a model of many layers takes seconds.

    Args:
        model: a `CausalLM`, or what stands for one.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self.backbone = _TracedBackbone(model.backbone)
        self._projection = None
        if OutputProjection.is_worth_it(model):
            self._projection = OutputProjection(model)
        self._graphs = {
            name: _graph(method)
            for name, method in {
                "call": self._logits,
                "prefill": served_graphs()(model.prefill),
                "call_with_cache": served_graphs()(self._step),
                "token_log_probabilities": self._log_probabilities,
            }.items()
        }

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    @property
    def variables(self) -> list[tf.Variable]:
        """What the graphs read."""
        variables = variables_of(self._model)
        if self._projection is not None:
            variables.append(self._projection.weights)
        return variables

    def __call__(self, inputs: dict[str, tf.Tensor], training: bool = False) -> Any:
        return self._graphs["call"](inputs)

    def prefill(self, *inputs: Any) -> Any:
        """See `langzoo.models.CausalLM.prefill`."""
        return self._graphs["prefill"](*inputs)

    def call_with_cache(self, *inputs: Any) -> Any:
        """See `langzoo.models.CausalLM.call_with_cache`; it may overwrite the cache."""
        return self._graphs["call_with_cache"](*inputs)

    def token_log_probabilities(self, *inputs: Any) -> Any:
        """See `langzoo.models.CausalLM.token_log_probabilities`."""
        return self._graphs["token_log_probabilities"](*inputs)

    def _logits(self, inputs: dict[str, tf.Tensor]) -> tf.Tensor:
        if has_hidden_states(self._model):
            return self.backbone.logits(self.backbone(inputs))
        return self._model(inputs, training=False)

    def _log_probabilities(
        self, inputs: dict[str, tf.Tensor], target_ids: tf.Tensor
    ) -> tf.Tensor:
        method = type(self._model).token_log_probabilities
        if method is CausalLM.token_log_probabilities:
            return log_softmax_of(self(inputs), target_ids)
        return self._model.token_log_probabilities(inputs, target_ids)

    def _step(
        self, token_ids: tf.Tensor, cache: Any, index: tf.Tensor, *memory: Any
    ) -> tuple[tf.Tensor, tf.Tensor, Any]:
        inputs = (token_ids, cache, index, *memory)
        if self._projection is None:
            return self._model.call_with_cache(*inputs)
        hidden_states, cache = self._model.backbone.call_with_cache(*inputs)
        return self._projection(hidden_states), hidden_states, cache


class TracedPairModel(TracedModel):
    """The same of a model that reads a source.

    Args:
        model: a `SeqToSeqLM`, or what stands for one.
    """

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        self._graphs["encode"] = _graph(served_graphs()(model.encode))

    def encode(self, *inputs: Any) -> Any:
        """See `langzoo.models.SeqToSeqLM.encode`."""
        return self._graphs["encode"](*inputs)


def variables_of(model: Any) -> list[tf.Variable]:
    """The variables of a model, as an export holds them."""
    # Keras's own would load, and then not be found in a TF1 session.
    return [variable.value for variable in model.variables]


def _graph(method: Callable) -> Callable:
    return tf.function(method, autograph=False, reduce_retracing=True)
