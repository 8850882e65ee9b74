"""A model whose parts are traced once for all signatures of an export."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from ...models.backbone import served_graphs
from .output_projection import OutputProjection


class TracedModel:
    """Attribute by attribute a model; its calls are graphs that signatures share.

    A signature is a graph of its own, and tracing a model of many layers takes seconds.

    Args:
        model: a `CausalLM`, or what stands for one.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._projection = None
        if OutputProjection.is_worth_it(model):
            self._projection = OutputProjection(model)
        self._graphs = {
            name: tf.function(method, autograph=False, reduce_retracing=True)
            for name, method in {
                "call": lambda inputs: model(inputs, training=False),
                "prefill": served_graphs()(model.prefill),
                "call_with_cache": served_graphs()(self._step),
                "token_log_probabilities": model.token_log_probabilities,
            }.items()
        }

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    @property
    def variables(self) -> list[tf.Variable]:
        """What the graphs read."""
        # Keras's own variables would load, and then not be found in a TF1 session.
        variables = [variable.value for variable in self._model.variables]
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

    def _step(
        self, token_ids: tf.Tensor, cache: Any, index: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, Any]:
        if self._projection is None:
            return self._model.call_with_cache(token_ids, cache, index)
        backbone = self._model.backbone
        hidden_states, cache = backbone.call_with_cache(token_ids, cache, index)
        return self._projection(hidden_states), hidden_states, cache
