"""TokenizerTrainer: a tokenizer learned from the training split."""

from __future__ import annotations

from tfx.dsl.components.base import base_beam_component, executor_spec
from tfx.types import standard_artifacts
from tfx.types.channel import BaseChannel, Channel
from tfx.types.component_spec import (
    ChannelParameter,
    ComponentSpec,
    ExecutionParameter,
)

from ..source import preset_hash, source_hash
from ..types import Tokenizer
from . import executor


class TokenizerTrainerSpec(ComponentSpec):
    """Interface of `TokenizerTrainer`."""

    PARAMETERS = {
        executor.TYPE_KEY: ExecutionParameter(type=str),
        executor.VOCABULARY_SIZE_KEY: ExecutionParameter(type=int),
        executor.SAMPLE_BYTES_KEY: ExecutionParameter(type=int),
        executor.SEED_KEY: ExecutionParameter(type=int),
        executor.PRESET_KEY: ExecutionParameter(type=str),
        executor.PATH_KEY: ExecutionParameter(type=str),
        "preset_hash": ExecutionParameter(type=str),
        "source_hash": ExecutionParameter(type=str),
    }
    INPUTS = {"examples": ChannelParameter(type=standard_artifacts.Examples)}
    OUTPUTS = {"tokenizer": ChannelParameter(type=Tokenizer)}


class TokenizerTrainer(base_beam_component.BaseBeamComponent):
    """Learns a tokenizer from the split `train`, or takes one that is there.

    Characters and words are counted in the whole split, and pieces of words learned
    from those counts; SentencePiece learns from a bounded, seeded sample of it.

    A tokenizer's model is fixed when the Transform graph is traced, so no analyzer
    inside Transform can learn it: it is a component and an artifact of its own.

    ```python
    trainer = TokenizerTrainer(example_gen.outputs["examples"], type="bpe")
    ```

    Args:
        examples: Examples with the feature `text`.
        type: `"bpe"` or `"unigram"` (SentencePiece), `"word_piece"`, `"words"`,
            `"characters"`, or `"bytes"`, `"preset"` or `"file"`, which learn nothing.
        vocabulary_size: Number of tokens; a small corpus may give fewer.
        sample_bytes: Largest sample of text to learn from, in bytes.
        seed: Chooses the sample.
        preset: KerasHub preset whose tokenizer the type `"preset"` takes.
        path: File or folder that the type `"file"` takes; see
            `models.tokenizer_files.load_tokenizer`.
    """

    SPEC_CLASS = TokenizerTrainerSpec
    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(executor.Executor)

    def __init__(
        self,
        examples: BaseChannel,
        *,
        type: str = "bpe",
        vocabulary_size: int = 8192,
        sample_bytes: int = 10_000_000,
        seed: int = 0,
        preset: str = "",
        path: str | None = None,
    ) -> None:
        preset = preset if type == "preset" else ""
        path = path or ""
        super().__init__(
            TokenizerTrainerSpec(
                examples=examples,
                type=type,
                vocabulary_size=vocabulary_size,
                sample_bytes=sample_bytes,
                seed=seed,
                preset=preset,
                path=path,
                preset_hash=preset_hash(preset or path),
                source_hash=source_hash(executor.__name__),
                tokenizer=Channel(type=Tokenizer),
            )
        )
