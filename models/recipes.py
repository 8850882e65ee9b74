"""How the families learn from scratch: one recipe, and what a family changes in it.

`benchmarks/quality.py` measures what the recipes reach.
"""

from __future__ import annotations

from typing import NamedTuple

import keras


class Recipe(NamedTuple):
    """AdamW with linear warm-up, cosine decay and global-norm clipping.

    Attributes:
        learning_rate: float. Peak of the schedule.
        final_learning_rate: float. End of the schedule, as a share of its peak.
        warmup_steps: int. Steps until the peak.
        weight_decay: float. Not applied to biases and norms.
        beta_2: float. Decay rate of the second moment.
        clip_norm: float. Bound on the gradient's global norm.

    References:
        - [Loshchilov and Hutter, 2017](https://arxiv.org/abs/1711.05101) (AdamW)
        - [Pascanu et al., 2013](https://arxiv.org/abs/1211.5063) (clipping)
    """

    learning_rate: float = 3e-3
    final_learning_rate: float = 0.02
    warmup_steps: int = 100
    weight_decay: float = 0.1
    beta_2: float = 0.99
    clip_norm: float = 1.0

    def optimizer(self, steps: int | None = None) -> keras.optimizers.Optimizer:
        """Makes the optimizer.

        Args:
            steps: int or `None`. Length of the training. Defaults to `None`, not
                known: warm-up to a learning rate that stays.

        Returns:
            A `keras.optimizers.AdamW`.

        Example:
        ```python
        model = build_causal_lm("lstm", ByteTokenizer(), 64)
        model.compile(optimizer=RECIPES["lstm"].optimizer(steps=1000))
        ```
        """
        warmup = self.warmup_steps
        if steps is not None:
            warmup = min(warmup, max(steps - 1, 0))
        schedule = keras.optimizers.schedules.CosineDecay(
            initial_learning_rate=0.0 if warmup else self.learning_rate,
            decay_steps=1 if steps is None else max(steps - warmup, 1),
            alpha=1.0 if steps is None else self.final_learning_rate,
            warmup_target=self.learning_rate if warmup else None,
            warmup_steps=warmup,
        )
        optimizer = keras.optimizers.AdamW(
            schedule,
            weight_decay=self.weight_decay,
            beta_2=self.beta_2,
            global_clipnorm=self.clip_norm,
        )
        optimizer.exclude_from_weight_decay(
            var_names=["bias", "beta", "gamma", "scale"]
        )
        return optimizer


COMMON = Recipe()
"""The recipe of an architecture from elsewhere."""

FINE_TUNING = Recipe(learning_rate=5e-5)
"""The recipe of a model that has learned before."""

RECIPES: dict[str, Recipe] = {
    "transformer": Recipe(learning_rate=3e-3),
    "rnn": Recipe(learning_rate=3e-3),
    "gru": Recipe(learning_rate=5e-3),
    "lstm": Recipe(learning_rate=6e-3),
    "gated_conv": Recipe(learning_rate=4e-3),
    "tcn": Recipe(learning_rate=4e-3),
}
"""The recipe of each family that learns by gradient, for its default sizes."""
