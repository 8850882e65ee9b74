"""Speculative decoding: a small model drafts, a large one checks."""

from __future__ import annotations

from typing import Any

import keras_hub
from keras import ops

from ..backbone import Cache, Tensor, require
from . import family_of_model

# A logit beside which zeros count for nothing.
_CERTAIN = 1e4


class SpeculativeSampler(keras_hub.samplers.SpeculativeSampler):
    """KerasHub's speculative sampler for the Transformers of the zoo.

    With greedy acceptance, the default, the text is that of the greedy sampler, token
    for token, whatever the draft model is; the better it guesses, the fewer steps the
    large model needs.

    Args:
        draft_model: a `CausalLM` with a `TransformerBackbone`, as the model that
            generates must be: only their caches can forget a draft that was refused.
            Both need one vocabulary.
        num_speculative_tokens: int. Tokens that are drafted at a time. Defaults to 5.
        **kwargs: `base_sampler` and `seed`, as in KerasHub.

    Raises:
        ValueError: if the draft model has no such backbone; in generation, if the
            model has none, the vocabularies differ, or there is no room for a draft.

    Example:
    ```python
    model.compile(sampler=SpeculativeSampler(draft_model))
    model.generate("to be", max_length=64)
    ```

    References:
        - [Leviathan et al., 2022](https://arxiv.org/abs/2211.17192)
    """

    def __init__(
        self, draft_model: Any, num_speculative_tokens: int = 5, **kwargs: Any
    ) -> None:
        super().__init__(num_speculative_tokens, **kwargs)
        _require_forgetful(draft_model)
        self.draft_model = draft_model

    def __call__(
        self,
        next: Any,
        prompt: Tensor,
        cache: Cache = None,
        index: Tensor = 0,
        mask: Tensor | None = None,
        stop_token_ids: Any = None,
        hidden_states: Tensor | None = None,
        model: Any = None,
    ) -> Tensor:
        draft = self.draft_model
        _require_forgetful(model)
        require(
            draft.backbone.vocabulary_size == model.backbone.vocabulary_size,
            "The draft model must have the vocabulary of the model.",
            draft_model=draft.backbone.vocabulary_size,
            model=model.backbone.vocabulary_size,
        )

        length = prompt.shape[1]
        require(
            length is not None and length > self.num_speculative_tokens,
            "`max_length` must be above `num_speculative_tokens`.",
            max_length=length,
            num_speculative_tokens=self.num_speculative_tokens,
        )
        if mask is None:
            mask = ops.zeros_like(prompt, dtype="bool")
        return super().__call__(
            next=next,
            prompt=prompt,
            cache=cache,
            index=index,
            mask=mask,
            stop_token_ids=stop_token_ids,
            hidden_states=hidden_states,
            model=model,
            draft_next=_draft_next(draft),
            draft_cache=draft.prefill(prompt, index - 1),
            verify_next=_verify_next(model, mask),
        )


def _draft_next(draft: Any) -> Any:
    """What the sampler asks the small model by."""

    def draft_next(
        prompt: Tensor, cache: Cache, index: Tensor
    ) -> tuple[Tensor, Tensor, Cache]:
        # The last token but one, too: after a draft that was taken as a whole it is
        # the large model's.
        logits, cache = _logits_before(draft, prompt, cache, index, 2)  # (B, 2, V)
        return logits[:, -1], (), cache

    return draft_next


def _verify_next(model: Any, mask: Tensor) -> Any:
    """What the sampler asks the large model by; `mask` is true where prompts are."""

    def verify_next(
        prompt: Tensor, cache: Cache, index: Tensor, length: int
    ) -> tuple[Tensor, Cache]:
        end, count = index + length, length + 1
        logits, cache = _logits_before(model, prompt, cache, end, count)  # (B, L, V)
        # The sampler would write over the rest of the longer prompts.
        places = index + ops.arange(count)  # (L,)
        places = ops.minimum(places, ops.shape(prompt)[1] - 1)
        tokens = ops.take(prompt, places, axis=1)  # (B, L)
        given = ops.one_hot(tokens, logits.shape[-1])  # (B, L, V)
        is_given = ops.take(mask, places, axis=1)[..., None]  # (B, L, 1)
        return ops.where(is_given, given * _CERTAIN, logits), cache

    return verify_next


def _logits_before(
    model: Any, prompt: Tensor, cache: Cache, end: Tensor, length: int
) -> tuple[Tensor, Cache]:
    """What `length` tokens before position `end` predict, `(B, length, V)`.

    Where there are too few tokens before, or `end` is behind the last, the window is
    moved; a prediction that is asked of a position outside is the nearest one's.
    """
    wanted = ops.cast(end, "int32") - length
    start = ops.clip(wanted, 0, ops.shape(prompt)[1] - length)
    columns = ops.arange(length)
    tokens = ops.take(prompt, start + columns, axis=1)
    logits, _, cache = model.call_with_cache(tokens, cache, start)
    places = ops.clip(columns + (wanted - start), 0, length - 1)
    return ops.take(logits, places, axis=1), cache


def _require_forgetful(model: Any) -> None:
    require(
        family_of_model(model).cache_goes_back,
        "Speculative sampling needs models whose cache can go back, such as those with "
        "a `TransformerBackbone`.",
        backbone=type(model.backbone).__name__,
    )
