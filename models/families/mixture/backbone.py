"""A mixture of models as a backbone."""

from __future__ import annotations

import dataclasses
from typing import Any

import keras
from keras import ops

from ...backbone import Cache, CausalBackbone, Tensor
from ...references import load
from .family import MIXTURE, MixtureSettings, family_of
from .gate import Gate


@keras.saving.register_keras_serializable(package="langzoo")
class MixtureBackbone(CausalBackbone):
    """Several models whose probabilities are combined, token by token.

    After each token the members' probabilities of the next one are added up with
    weights that sum to one, and depend on how sure each member is: see `Gate`. The
    hidden states are the logarithms of the sums, so `hidden_dim` is `vocabulary_size`.
    A mixture can what each of its members can; its cache is a list of theirs.

    Args:
        vocabulary_size: int. Number of token ids.
        **settings: see `MixtureSettings`.

    Call arguments:
        inputs: dictionary of `token_ids` (int32) and `padding_mask` (bool), both
            `(batch_size, sequence_length)`. The output is
            `(batch_size, sequence_length, vocabulary_size)`.

    Example:
    ```python
    members = [{"family": "lstm", "hidden_dim": 64}, {"family": "ngram", "order": 3}]
    backbone = MixtureBackbone(vocabulary_size=260, members=members)
    ```

    References:
        - [Jelinek and Mercer, 1980](https://doi.org/10.1016/B978-0-444-85120-2.50015-4)
          (weights that depend on the context, learned on held-out text)
    """

    family = MIXTURE

    def make_layers(self, settings: MixtureSettings, dtype: Any) -> None:
        records = [family_of(member["family"]) for member in settings.members]
        self.family = dataclasses.replace(
            self.family,
            carries_state=all(record.carries_state for record in records),
            cache_goes_back=all(record.cache_goes_back for record in records),
        )
        self.mixture = Mixture(
            [
                load(record.backbone)(
                    vocabulary_size=self.vocabulary_size,
                    max_sequence_length=self.max_sequence_length,
                    dtype=dtype,
                    name=f"member_{number}",
                    **{key: member[key] for key in member if key != "family"},
                )
                for number, (record, member) in enumerate(
                    zip(records, settings.members, strict=True)
                )
            ],
            settings.gate_dim,
            dtype=dtype,
        )
        self.hidden_dim = self.vocabulary_size

    def run_layers(self, token_ids: Tensor) -> Tensor:
        return self.mixture(token_ids)  # (B, T, V)

    def logits(self, hidden_states: Tensor) -> Tensor:
        return ops.cast(hidden_states, "float32")

    def empty_cache(self, batch_size: Tensor, max_length: Tensor = 0) -> Cache:
        """The members' caches before any token, a list."""
        return [
            member.empty_cache(batch_size, max_length)
            for member in self.mixture.members
        ]

    def call_with_cache(
        self, token_ids: Tensor, cache: Cache, cache_update_index: Tensor
    ) -> tuple[Tensor, Cache]:
        return self._combined(
            member.call_with_cache(token_ids, own, cache_update_index)
            for member, own in zip(self.mixture.members, cache, strict=True)
        )

    def call_with_state(
        self, token_ids: Tensor, state: Cache, training: bool | None = None
    ) -> tuple[Tensor, Cache]:
        """Hidden states of tokens after a state, and the next: see `StatefulNetwork`.

        Args:
            token_ids: int32 tensor of shape `(batch_size, sequence_length)`.
            state: what `empty_cache()` or this method returned.
            training: bool. Whether to drop out.
        """
        return self._combined(
            member.call_with_state(token_ids, own, training)
            for member, own in zip(self.mixture.members, state, strict=True)
        )

    def prefill(self, token_ids: Tensor, length: Tensor) -> Cache:
        return [member.prefill(token_ids, length) for member in self.mixture.members]

    def _combined(self, results: Any) -> tuple[Tensor, Cache]:
        hidden_states, caches = zip(*results, strict=True)
        log_probabilities = self.mixture.of_hidden_states(hidden_states)
        return self.mixture.combined(log_probabilities), list(caches)


class Mixture(keras.layers.Layer):
    """The members and the gate.

    Args:
        members: list of `CausalBackbone`, of one vocabulary.
        gate_dim: see `Gate`.
        dtype: of the output and the weights.

    Call arguments:
        inputs: int32 tensor of shape `(batch_size, sequence_length)`.

    Returns:
        Log-probabilities `(batch_size, sequence_length, vocabulary_size)`.
    """

    def __init__(
        self, members: list[CausalBackbone], gate_dim: int, dtype: Any = None
    ) -> None:
        super().__init__(dtype=dtype, autocast=False, name="mixture")
        self.members = members
        self.gate = Gate(
            len(members), gate_dim, dtype=dtype, autocast=False, name="gate"
        )

    def build(self, input_shape: Any) -> None:
        self.gate.build()

    def call(self, inputs: Tensor) -> Tensor:
        return self.combined(self.log_probabilities(inputs))

    def log_probabilities(self, token_ids: Tensor) -> Tensor:
        """What each member says of the next tokens, `(B, T, K, V)`."""
        token_ids = ops.cast(token_ids, "int32")
        mask = ops.ones_like(token_ids, dtype="bool")
        inputs = {"token_ids": token_ids, "padding_mask": mask}
        return self.of_hidden_states([member(inputs) for member in self.members])

    def of_hidden_states(self, hidden_states: Any) -> Tensor:
        """What each member's hidden states say of the next tokens, `(B, T, K, V)`."""
        logits = [
            member.logits(states)
            for member, states in zip(self.members, hidden_states, strict=True)
        ]
        return ops.log_softmax(ops.stack(logits, axis=-2), axis=-1)

    def combined(self, log_probabilities: Tensor) -> Tensor:
        """The members' log-probabilities `(B, T, K, V)` as those of the mixture."""
        weights = self.gate(log_probabilities)[..., None]  # (B, T, K, 1)
        combined = ops.logsumexp(log_probabilities + weights, axis=-2)
        return ops.cast(combined, self.compute_dtype)
