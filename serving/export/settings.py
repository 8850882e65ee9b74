"""How a model is exported: the section `serving` of the configuration, but for where.

Importing this module imports neither TensorFlow nor Keras.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ...models.settings import Section


class ExportSettings(Section):
    """Lengths that are fixed when a model is exported."""

    score_stride: Annotated[int, Field(ge=0)] | None = None
    """Step between the windows in which long documents are scored; default half the
    context. With 0 the state of a recurrent model goes on from window to window, to the
    document's end, as published perplexities are measured."""
    max_new_tokens: Annotated[int, Field(ge=1)] | None = None
    """Most tokens that one request may generate; default half the context, or where the
    context is of the target alone, as many as there is room for."""
    embed_pooling: Literal["mean", "last"] = "mean"
    """Which hidden states make a text's embedding: the mean of all, or the last."""
    embed_normalize: bool = True
    """Whether embeddings have the length 1, so that their product is the cosine."""

    def lengths(self, context_length: int) -> tuple[int, int]:
        """The stride and the most new tokens of a model with such a context.

        Raises:
            ValueError: One does not fit into it.
        """
        half = context_length // 2
        stride = half if self.score_stride is None else self.score_stride
        cap = self.max_new_tokens or half
        if stride > context_length:
            raise _misfit(f"score_stride {stride} must be at most", context_length)
        if cap >= context_length:
            raise _misfit(f"max_new_tokens {cap} must be below", context_length)
        return stride, cap


def _misfit(said: str, context_length: int) -> ValueError:
    return ValueError(f"serving.{said} model.context_length {context_length}")
