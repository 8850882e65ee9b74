"""How the families learn from scratch: one recipe, and what a family changes in it.

`benchmarks/quality.py` measures what the recipes reach.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import keras

    from .optimizers import Kind
    from .schedules import Schedule

_SPARED = ["bias", "beta", "gamma", "scale"]


class Recipe(NamedTuple):
    """An optimizer with its schedule: by default AdamW, warm-up and cosine decay.

    Attributes:
        learning_rate: float. Peak of the schedule.
        final_learning_rate: float. End of the schedule (of cosine and linear decay) or
            its least value, as a share of its peak.
        warmup_steps: int. Steps until the peak.
        weight_decay: float. Decoupled, as in AdamW, whatever the optimizer. Not applied
            to biases and norms.
        beta_2: float. Decay rate of the second moment of Adam and AdamW, and of Lion's
            momentum.
        clip_norm: float. Bound on the gradient's global norm; 0 for none.
        optimizer: string, one of `optimizers.OPTIMIZERS`. With another than AdamW, see
            `with_optimizer`.
        schedule: string, one of `schedules.SCHEDULES`.
        decay_every_steps: int or `None`. Steps between two falls of the schedule
            `"step"`.
        decay_factor: float. What a fall of `"step"` or `"plateau"` multiplies the rate
            with.
        plateau_patience: int. Evaluations without a better loss until `"plateau"`
            falls.
        momentum: float. Of SGD.
        averaging_patience: int. Of NT-ASGD: see `optimizers.averaging_is_due`.
        ema_momentum: float or `None`. Of an exponential moving average of the weights,
            which takes their place where training ends. `None` for none.
        gradient_accumulation_steps: int. Batches whose mean gradient makes a step.

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
    optimizer: str = "adamw"
    schedule: str = "cosine"
    decay_every_steps: int | None = None
    decay_factor: float = 0.5
    plateau_patience: int = 2
    momentum: float = 0.9
    averaging_patience: int = 5
    ema_momentum: float | None = None
    gradient_accumulation_steps: int = 1

    def with_optimizer(self, name: str) -> Recipe:
        """This recipe of AdamW, translated for another optimizer.

        The learning rate is multiplied by what the optimizer usually needs, and the
        weight decay divided by it, so that weights decay as much a step; with Adam
        they do not decay. That is where to begin, not the best.

        Raises:
            ValueError: if there is no such optimizer.
        """
        kind = _kind(name)
        return self._replace(
            optimizer=name,
            learning_rate=self.learning_rate * kind.rate,
            weight_decay=self.weight_decay / kind.rate if kind.decays else 0.0,
        )

    def make_schedule(self, steps: int | None = None) -> Schedule:
        """Makes the schedule.

        Args:
            steps: int or `None`. As in `make_optimizer()`.
        """
        from .schedules import PerUpdate, make_schedule

        warmup = self.warmup_steps
        if steps is not None:
            warmup = min(warmup, max(steps - 1, 0))
        schedule = make_schedule(
            self.schedule,
            self.learning_rate,
            warmup_steps=warmup,
            steps=steps,
            final=self.final_learning_rate,
            decay_every_steps=self.decay_every_steps,
            decay_factor=self.decay_factor,
        )
        if self.gradient_accumulation_steps == 1:
            return schedule
        return PerUpdate(schedule, self.gradient_accumulation_steps)

    def make_optimizer(self, steps: int | None = None) -> keras.optimizers.Optimizer:
        """Makes the optimizer.

        Args:
            steps: int or `None`. Length of the training. Defaults to `None`, not
                known: warm-up to a learning rate that stays, where the schedule needs
                to know.

        Returns:
            An optimizer of Keras, or `optimizers.NTASGD`.

        Raises:
            ValueError: if the optimizer or the schedule is unknown, or they do not go
                with the other attributes.

        Example:
        ```python
        model = build_causal_lm("lstm", ByteTokenizer(), 64)
        recipe = RECIPES["lstm"].with_optimizer("lion")._replace(schedule="linear")
        model.compile(optimizer=recipe.make_optimizer(steps=1000))
        ```
        """
        from ..backbone import require

        kind = _kind(self.optimizer)
        require(
            self.optimizer != "nt_asgd" or self.ema_momentum is None,
            "NT-ASGD averages the weights in its own way, without `ema_momentum`.",
            ema_momentum=self.ema_momentum,
        )
        batches = self.gradient_accumulation_steps
        averaging = {}
        if self.ema_momentum is not None:
            # Keras averages after every batch, not after every step.
            momentum = self.ema_momentum ** (1 / batches)
            averaging = {"use_ema": True, "ema_momentum": momentum}
        optimizer = kind.make(
            self.make_schedule(steps),
            weight_decay=self.weight_decay,
            global_clipnorm=self.clip_norm or None,
            gradient_accumulation_steps=batches if batches > 1 else None,
            **{name: getattr(self, name) for name in kind.settings},
            **averaging,
        )
        optimizer.exclude_from_weight_decay(var_names=_SPARED)
        return optimizer


def _kind(optimizer: str) -> Kind:
    from ..backbone import require
    from .optimizers import OPTIMIZERS

    require(
        optimizer in OPTIMIZERS,
        f"The optimizer must be one of {', '.join(OPTIMIZERS)}.",
        optimizer=optimizer,
    )
    return OPTIMIZERS[optimizer]


COMMON = Recipe()
"""The recipe of an architecture from elsewhere."""

FINE_TUNING = Recipe(learning_rate=5e-5)
"""The recipe of a model that has learned before."""
