"""The sequence-to-sequence task: a source is read, and a target written.

In shapes: B sources of S tokens; N targets of T, N a multiple of B, each source's
targets in a row; V `vocabulary_size`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import keras_hub
import tensorflow as tf
from keras import ops
from keras_hub.src.utils.tensor_utils import preprocessing_function

from ..backbone import AnyOf, Cache, Tensor
from ..encoder_decoder import SOURCE, TARGET, EncoderDecoderBackbone, Memory
from ..tokenizers.byte import ByteTokenizer
from .next_token import NextToken, until_stop
from .pairs import between, cut_to, ids_of, padded, score_pairs

_ANY_FAMILY = AnyOf(EncoderDecoderBackbone)
SOURCE_TOKENIZER_FILE = "source_tokenizer.json"
"""Where a preset has a tokenizer that the source has for itself."""


@keras.saving.register_keras_serializable(package="langzoo")
class SeqToSeqLMPreprocessor(keras_hub.models.Seq2SeqLMPreprocessor):
    """Turns pairs of texts into padded token ids for a `SeqToSeqLM` of any family.

    A source becomes `tokens... </s>`, a longer one cut to `encoder_sequence_length`,
    its `</s>` kept: see `is_cut`. A target becomes `<s> tokens... </s>`, cut or padded
    to `decoder_sequence_length`.

    Args:
        tokenizer: a tokenizer of `langzoo.models`, of the target and, without another,
            of the source.
        encoder_sequence_length: int. The longest source. Defaults to 1024.
        decoder_sequence_length: int. The length of the decoder's input. Defaults to
            1024.
        source_tokenizer: that of the source, if it is another. A preset has it in
            `source_tokenizer.json`. Defaults to `None`.
        source_start_ids: sequence of ints. What stands before a source. Defaults to
            `()`.
        target_start_ids: sequence of ints or `None`. What stands before a target, for
            which a decoder is not asked. Defaults to `None`, `<s>` alone.
        **kwargs: see `keras_hub.models.Seq2SeqLMPreprocessor`.

    Call arguments:
        x: dictionary of `encoder_text` and `decoder_text`, each a string, a list of
            strings, or a string tensor of shape `(batch_size,)`.

    Returns:
        A tuple `(x, y, sample_weight)`: `x` as the model takes it, `y` the next tokens
        and `sample_weight` where they are real, both
        `(batch_size, decoder_sequence_length)`.

    Example:
    ```python
    preprocessor = SeqToSeqLMPreprocessor(ByteTokenizer(), 8, 8)
    x, y, sample_weight = preprocessor(
        {"encoder_text": ["a quick fox", "so"], "decoder_text": ["ein Fuchs", "so"]}
    )
    ```
    """

    backbone_cls = _ANY_FAMILY
    # A preset names the class of its own tokenizer; this one only says that there is
    # a tokenizer to load.
    tokenizer_cls = ByteTokenizer

    def __init__(
        self,
        tokenizer: Any,
        encoder_sequence_length: int = 1024,
        decoder_sequence_length: int = 1024,
        source_tokenizer: Any = None,
        source_start_ids: Sequence[int] = (),
        target_start_ids: Sequence[int] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            tokenizer, encoder_sequence_length, decoder_sequence_length, **kwargs
        )
        if source_tokenizer is tokenizer:
            source_tokenizer = None
        if source_tokenizer is not None:
            # As KerasHub keeps the second tokenizer of a preset.
            source_tokenizer.config_file = SOURCE_TOKENIZER_FILE
        self.own_source_tokenizer = source_tokenizer
        self.source_start_ids = tuple(source_start_ids)
        self._target_start_ids = tuple(target_start_ids or ())

    @property
    def source_tokenizer(self) -> Any:
        """The tokenizer of the source, perhaps that of the target."""
        return self.own_source_tokenizer or self.tokenizer

    @property
    def target_start_ids(self) -> tuple[int, ...]:
        """What stands before a target."""
        return self._target_start_ids or (int(self.tokenizer.start_token_id),)

    def framed_sources(
        self, ids: tf.RaggedTensor, length: int | None = None
    ) -> tf.RaggedTensor:
        """Ids of sources int32 `[b, (s)]` as the encoder reads them, cut if too long.

        Args:
            ids: as the tokenizer of the source gives them.
            length: int or `None`. The longest, by default `encoder_sequence_length`.

        Returns:
            int32 `[b, (s')]`, `</s>` the last.
        """
        ids = cut_to(ids, self._source_room(length))
        end = int(self.source_tokenizer.end_token_id)
        return between(self.source_start_ids, ids, (end,))

    def framed_targets(self, ids: tf.RaggedTensor) -> tf.RaggedTensor:
        """Ids of targets int32 `[b, (t)]` as the decoder reads and says them, whole.

        Returns:
            int32 `[b, (t + 2)]`: `<s> ... </s>`.
        """
        end = int(self.tokenizer.end_token_id)
        return between(self.target_start_ids, ids, (end,))

    def is_cut(self, ids: tf.RaggedTensor) -> tf.Tensor:
        """Which sources `[b, (s)]` are longer than the model sees, bool `[b]`."""
        return ids.row_lengths() > self._source_room()

    def _source_room(self, length: int | None = None) -> int:
        length = length or self.encoder_sequence_length
        return length - len(self.source_start_ids) - 1

    def source_ids(self, texts: Any, length: int | None = None) -> tf.RaggedTensor:
        """`framed_sources` of texts, string `[b]`."""
        return self.framed_sources(ids_of(self.source_tokenizer, texts), length)

    def target_ids(self, texts: Any) -> tf.RaggedTensor:
        """`framed_targets` of texts, string `[b]`."""
        return self.framed_targets(ids_of(self.tokenizer, texts))

    def source_inputs(
        self, ids: tf.RaggedTensor, width: int | None = None
    ) -> dict[str, tf.Tensor]:
        """The encoder's inputs, by default as wide as the longest source.

        Args:
            ids: as `framed_sources` gives them.
            width: int or `None`.
        """
        pad_id = int(self.source_tokenizer.pad_token_id)
        return _named(SOURCE, padded(ids, pad_id, width))

    def target_inputs(
        self, ids: tf.RaggedTensor, width: int | None = None
    ) -> dict[str, tf.Tensor]:
        """The decoder's inputs, likewise, of ids int32 `[b, (t)]`."""
        return _named(TARGET, padded(ids, int(self.tokenizer.pad_token_id), width))

    @preprocessing_function
    def call(
        self,
        x: Any,
        y: Any = None,
        sample_weight: Any = None,
        *,
        encoder_sequence_length: int | None = None,
        decoder_sequence_length: int | None = None,
        sequence_length: int | None = None,
    ) -> Any:
        length = decoder_sequence_length or sequence_length
        length = length or self.decoder_sequence_length
        texts = {name: tf.convert_to_tensor(text) for name, text in x.items()}
        is_one = texts["decoder_text"].shape.rank == 0
        flat = {name: tf.reshape(text, [-1]) for name, text in texts.items()}
        targets = ids_of(self.tokenizer, flat["decoder_text"])
        room = length - len(self.target_start_ids)
        targets = self.framed_targets(cut_to(targets, room))
        width = encoder_sequence_length or self.encoder_sequence_length
        features = {
            **self.source_inputs(self.source_ids(flat["encoder_text"], width), width),
            **self.target_inputs(targets[:, :-1], length),
        }
        y, sample_weight = padded(
            targets[:, 1:], int(self.tokenizer.pad_token_id), length
        )
        packed = (features, y, sample_weight)
        return tf.nest.map_structure(lambda it: it[0], packed) if is_one else packed

    @preprocessing_function
    def generate_preprocess(
        self,
        x: Any,
        *,
        encoder_sequence_length: int | None = None,
        decoder_sequence_length: int | None = None,
        sequence_length: int | None = None,
    ) -> Any:
        """See `keras_hub.models.Seq2SeqLMPreprocessor.generate_preprocess`.

        Args:
            x: the sources; or a dictionary of `encoder_text` and `decoder_text`, which
                the targets are to begin with.
            encoder_sequence_length: int or `None`. Defaults to the preprocessor's.
            decoder_sequence_length: int or `None`. Likewise.
            sequence_length: an alias of `decoder_sequence_length`.
        """
        length = decoder_sequence_length or sequence_length
        length = length or self.decoder_sequence_length
        given = x if isinstance(x, dict) else {"encoder_text": x}
        source = tf.convert_to_tensor(given["encoder_text"])
        prefix = given.get("decoder_text", tf.fill(tf.shape(source), ""))
        prefix = tf.convert_to_tensor(prefix)
        width = encoder_sequence_length or self.encoder_sequence_length
        sources = self.source_ids(tf.reshape(source, [-1]), width)
        features = self.source_inputs(sources, width)
        ids = self.target_ids(tf.reshape(prefix, [-1]))[:, :-1]
        features |= self.target_inputs(cut_to(ids, length), length)
        end, mask = int(self.tokenizer.end_token_id), features["decoder_padding_mask"]
        if self.tokenizer.pad_token_id == end:
            # A sampler would take the padding for a token just written, and stop.
            others = tf.where(mask, features["decoder_token_ids"], int(end == 0))
            features["decoder_token_ids"] = others
        if source.shape.rank:
            return features
        return {name: part[0] for name, part in features.items()}

    def get_config(self) -> dict[str, Any]:
        own = self.own_source_tokenizer
        return {
            **super().get_config(),
            "encoder_sequence_length": self.encoder_sequence_length,
            "decoder_sequence_length": self.decoder_sequence_length,
            "source_tokenizer": own and keras.layers.serialize(own),
            "source_start_ids": self.source_start_ids,
            "target_start_ids": self._target_start_ids or None,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> SeqToSeqLMPreprocessor:
        own = config.get("source_tokenizer")
        if isinstance(own, dict):
            config = {**config, "source_tokenizer": keras.layers.deserialize(own)}
        return super().from_config(config)


def _named(side: str, padded_ids: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
    token_ids, mask = padded_ids
    return {f"{side}_token_ids": token_ids, f"{side}_padding_mask": mask}


@keras.saving.register_keras_serializable(package="langzoo")
class SeqToSeqLM(NextToken, keras_hub.models.Seq2SeqLM):
    """A model that writes a target to a source, with any backbone that reads one.

    The model is functional, from the inputs of an `EncoderDecoderBackbone` to float32
    logits of shape `(B, T, V)`. The output weights are those of the backbone's token
    embedding.

    Args:
        backbone: an `EncoderDecoderBackbone`.
        preprocessor: a `SeqToSeqLMPreprocessor`, or `None` if inputs are always token
            ids. Defaults to `None`.
        **kwargs: `name`, and `compile=False` to leave the model uncompiled.

    Call arguments:
        inputs: dictionary, as of `EncoderDecoderBackbone`.

    Example:
    ```python
    tokenizer = ByteTokenizer()
    model = SeqToSeqLM(
        backbone=TransformerEncoderDecoder(260, num_layers=2, max_sequence_length=64),
        preprocessor=SeqToSeqLMPreprocessor(tokenizer, 64, 64),
    )
    loss = SmoothedCrossEntropy(0.1)
    model.compile(optimizer=keras.optimizers.AdamW(1e-3), loss=loss, sampler="beam")
    pairs = {"encoder_text": ["a dog", "a cat"], "decoder_text": ["Hund", "Katze"]}
    model.fit(pairs, batch_size=2)
    model.generate("a dog", max_length=16)
    model.generate({"encoder_text": ["a cat"], "decoder_text": ["K"]}, max_length=16)
    model.score("a dog", "Hund")
    ```

    References:
        - [Sutskever et al., 2014](https://arxiv.org/abs/1409.3215)
    """

    backbone_cls: Any = _ANY_FAMILY
    preprocessor_cls = SeqToSeqLMPreprocessor

    def __init__(
        self,
        backbone: EncoderDecoderBackbone,
        preprocessor: SeqToSeqLMPreprocessor | None = None,
        **kwargs: Any,
    ) -> None:
        # === Layers ===
        self.backbone = backbone
        self.preprocessor = preprocessor

        # === Functional Model ===
        inputs = backbone.input
        states = backbone(inputs)["decoder_sequence_output"]
        outputs = backbone.logits(states)  # (B, T, V)
        super().__init__(inputs=inputs, outputs=outputs, **kwargs)

    @property
    def source_context_length(self) -> int:
        """The longest source, in tokens, that the model is made for."""
        return self.backbone.max_source_length

    def encode(self, token_ids: Tensor, padding_mask: Tensor) -> Memory:
        """Reads sources, once for all of their targets.

        Args:
            token_ids: int32 tensor of shape `(B, S)`.
            padding_mask: bool tensor of that shape, false where there is padding.

        Returns:
            A nest of tensors with leading dimension B: what the decoder sees of them.
        """
        return self.backbone.encode(token_ids, padding_mask)

    def prefill(self, token_ids: Tensor, length: Tensor, memory: Memory) -> Cache:
        """The cache after the first `length` columns; later columns have no influence.

        Args:
            token_ids: int32 tensor of shape `(N, max_length)`.
            length: int32 scalar tensor, from 0 to `max_length`.
            memory: what `encode()` returned.

        Returns:
            A nest of tensors with leading dimension N and with room for `max_length`
            positions, for `call_with_cache()`; nothing of the memory is in it.
        """
        return self.backbone.prefill(token_ids, length, memory)

    def call_with_cache(
        self,
        token_ids: Tensor,
        cache: Cache,
        cache_update_index: Tensor,
        memory: Memory,
    ) -> tuple[Tensor, Tensor, Cache]:
        """Consumes one token a row and predicts the next.

        Args:
            token_ids: int32 tensor of shape `(N, 1)`.
            cache: what `prefill()` or this method returned.
            cache_update_index: int32 scalar tensor, the position of the tokens.
            memory: what `encode()` returned.

        Returns:
            The logits `(N, 1, V)`, the hidden states `(N, 1, hidden_dim)` and the
            cache, its shapes unchanged.
        """
        hidden_states, cache = self.backbone.call_with_cache(
            token_ids, cache, cache_update_index, memory
        )
        return self.backbone.logits(hidden_states), hidden_states, cache

    def hidden_states(self, inputs: dict[str, Tensor]) -> Tensor:
        """Those that the logits of the inputs are made of, `(B, T, hidden_dim)`."""
        states: Tensor = self.backbone(inputs)["decoder_sequence_output"]
        return states

    def generate_step(
        self,
        inputs: dict[str, Tensor],
        stop_token_ids: list[int] | tuple[int, ...] | None = None,
    ) -> dict[str, Tensor]:
        """Writes the targets of one batch, with the sampler given to `compile()`.

        Args:
            inputs: those of the model: sources, and what the targets begin with, padded
                on the right to the length that is wanted.
            stop_token_ids: ids that end a row, or `None` to fill every row.

        Returns:
            `decoder_token_ids` with the beginnings continued, and
            `decoder_padding_mask`, false behind the first stop token. Both `(B, T)`.
        """
        token_ids = inputs["decoder_token_ids"]  # (B, T)
        mask = ops.cast(inputs["decoder_padding_mask"], "bool")
        source = (inputs[f"{SOURCE}_{name}"] for name in ("token_ids", "padding_mask"))
        memory = self.encode(*source)
        # All rows go on from the end of the shortest; the sampler leaves the tokens
        # of longer ones as they are.
        index = ops.min(ops.sum(ops.cast(mask, "int32"), axis=-1))

        def next_logits(
            prompt: Tensor, cache: Cache, index: Tensor
        ) -> tuple[Tensor, Tensor, Cache]:
            last = ops.take(prompt, index - 1, axis=1)[:, None]  # (N, 1)
            logits, hidden_states, cache = self.call_with_cache(
                last, cache, index - 1, memory
            )
            return logits[:, 0], hidden_states[:, 0], cache  # (N, V), (N, E)

        token_ids = self.sampler(
            next=next_logits,
            prompt=token_ids,
            cache=self.prefill(token_ids, index - 1, memory),
            index=index,
            mask=mask,
            stop_token_ids=stop_token_ids,
            # As of a `CausalLM`, for contrastive search.
            hidden_states=self.hidden_states(inputs),
            model=self,
        )
        return {
            "decoder_token_ids": token_ids,
            "decoder_padding_mask": until_stop(token_ids, mask, stop_token_ids),
        }

    def score(self, sources: Any, targets: Any, *, stride: int | None = None) -> Any:
        """How likely targets are, given their sources.

        Args:
            sources: a string, or a list or tensor of `b` strings.
            targets: as many.
            stride: int in [1, context length]. Distance between the windows in which a
                target longer than the context is read, by default half the context.

        Returns:
            A float32 RaggedTensor `(b, None)`: the log-probability, in nats, of each
            token of a target and of `</s>`; for one pair a vector. (What unknown pieces
            cost besides: `tasks.scoring.spelling_nll`.)

        Raises:
            ValueError: if there are more of one side, the stride is out of range, or
                there is no preprocessor.
        """
        return score_pairs(self, sources, targets, stride)


class Given:
    """A model's decoder, given sources, as a causal model: for loops that write.

    It is attribute by attribute the model, but for two methods that take no memory.

    Args:
        model: a `SeqToSeqLM`, or what stands for one.
        memory: what its `encode()` returned.
    """

    def __init__(self, model: Any, memory: Memory) -> None:
        self._model, self._memory = model, memory

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def prefill(self, token_ids: Tensor, length: Tensor) -> Cache:
        """See `SeqToSeqLM.prefill`."""
        return self._model.prefill(token_ids, length, self._memory)

    def call_with_cache(
        self, token_ids: Tensor, cache: Cache, cache_update_index: Tensor
    ) -> tuple[Tensor, Tensor, Cache]:
        """See `SeqToSeqLM.call_with_cache`."""
        return self._model.call_with_cache(
            token_ids, cache, cache_update_index, self._memory
        )
