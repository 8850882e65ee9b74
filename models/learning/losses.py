"""What training minimizes: cross-entropy of the next token."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from ..backbone import Tensor, require


@keras.saving.register_keras_serializable(package="langzoo")
class SmoothedCrossEntropy(keras.losses.Loss):
    """Cross-entropy, in nats, with targets that leave other tokens a little.

    The target's probability is `1 - label_smoothing`, and `label_smoothing` is spread
    over the whole vocabulary, the target included. Keras has this for targets given as
    vectors, `keras.losses.CategoricalCrossentropy`; here they are token ids.

    Args:
        label_smoothing: float in [0, 1).
        reduction: string. How losses become one. Defaults to
            `"mean_with_sample_weight"`.

    Call arguments:
        y_true: integer tensor `(...)`, token ids.
        y_pred: float tensor `(..., vocabulary_size)`, logits.

    Example:
    ```python
    model.compile(optimizer="adamw", loss=SmoothedCrossEntropy(0.1))
    ```

    References:
        - [Szegedy et al., 2015](https://arxiv.org/abs/1512.00567), section 7
    """

    def __init__(
        self,
        label_smoothing: float,
        reduction: str = "mean_with_sample_weight",
        name: str = "smoothed_cross_entropy",
        **kwargs: Any,
    ) -> None:
        super().__init__(name=name, reduction=reduction, **kwargs)
        require(
            0 <= label_smoothing < 1,
            "`label_smoothing` must be at least 0 and below 1.",
            label_smoothing=label_smoothing,
        )
        self.label_smoothing = label_smoothing

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        logits = ops.cast(y_pred, "float32")
        of_target = ops.sparse_categorical_crossentropy(
            ops.cast(y_true, "int32"), logits, from_logits=True
        )
        # The mean over the vocabulary of -log softmax, without a tensor of one-hots.
        of_all = ops.logsumexp(logits, axis=-1) - ops.mean(logits, axis=-1)
        return of_target + self.label_smoothing * (of_all - of_target)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "label_smoothing": self.label_smoothing}
