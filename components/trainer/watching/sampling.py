"""Text that a model writes while it is trained."""

from __future__ import annotations

from typing import Any

import keras_hub
import numpy as np

from ....models.tasks.causal_lm import CausalLM
from ...errors import InputError

_SEED = 0
_TEMPERATURE = 0.8


class Sampler:
    """Continues one prompt again and again, with the weights of the moment.

    Nothing of the model changes by it, nor any random state that training draws from:
    another task over the same backbone generates, with a sampler of its own that begins
    at the same seed every time.

    Args:
        model: The model.
        trained: What `networks.prepared` made of it for training.
        prompt: What the text begins with; "" for nothing.
        tokens: Most tokens that are written.

    Raises:
        InputError: Where the prompt leaves no room in the context.
    """

    def __init__(
        self,
        model: CausalLM,
        trained: Any,
        prompt: str = "",
        tokens: int = 50,
    ) -> None:
        preprocessor = model.preprocessor
        assert preprocessor is not None  # The windows are of its tokens.
        length = len(preprocessor.tokenizer(prompt)) + 1  # <s> is before it.
        if length >= model.context_length:
            raise InputError(
                f"watch.sample_prompt has {length} tokens with <s>: it must have less "
                f"than model.context_length, which is {model.context_length}"
            )
        task = getattr(trained, "model", trained)  # what `KerasHubCausalLM` is around
        self._task = type(task)(backbone=task.backbone, preprocessor=preprocessor)
        self._sampler = keras_hub.samplers.RandomSampler(
            temperature=_TEMPERATURE, seed=_SEED
        )
        # XLA would compile for longer than it writes.
        self._task.compile(sampler=self._sampler, jit_compile=False)
        self._state = np.array(self._sampler.seed_generator.state)
        self._prompt = prompt
        self._length = min(length + tokens, model.context_length)

    def __call__(self) -> str:
        """Returns the prompt, continued."""
        self._sampler.seed_generator.state.assign(self._state)
        return str(self._task.generate(self._prompt, max_length=self._length))
