"""TokenizerTrainer: a tokenizer learned from the training split."""

from __future__ import annotations

from typing import Any

from tfx.dsl.components.base import base_beam_component, executor_spec
from tfx.types import standard_artifacts
from tfx.types.channel import BaseChannel, Channel
from tfx.types.component_spec import ComponentSpec

from ..source import preset_hash, source_hash
from ..types import Tokenizer, channels, parameters
from . import executor
from .settings import TokenizerSettings


class TokenizerTrainerSpec(ComponentSpec):
    """Interface of `TokenizerTrainer`."""

    PARAMETERS = {
        # Those of the settings.
        **parameters(str, "type", "words", "path"),
        **parameters(int, "vocabulary_size", "sample_bytes", "seed"),
        **parameters(str, executor.PRESET_KEY, "preset_hash", "source_hash"),
    }
    INPUTS = channels(standard_artifacts.Examples, "examples")
    OUTPUTS = channels(Tokenizer, "tokenizer")


class TokenizerTrainer(base_beam_component.BaseBeamComponent):
    """Learns a tokenizer from the split `train`, or takes one that is there.

    Where documents have targets, it is of these and of texts, and learned from both.
    Characters and words are counted in the whole split, and pieces of words learned
    from those counts; SentencePiece learns from a bounded, seeded sample of it.

    A tokenizer's model is fixed when the Transform graph is traced, so no analyzer
    inside Transform can learn it: it is a component and an artifact of its own.

    ```python
    trainer = TokenizerTrainer(example_gen.outputs["examples"], type="bpe")
    ```

    Args:
        examples: Examples with the feature `text`, and perhaps `target`.
        preset: KerasHub preset whose tokenizer the type `"preset"` takes.
        **settings: Those of `TokenizerSettings`.
    """

    SPEC_CLASS = TokenizerTrainerSpec
    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(executor.Executor)

    def __init__(
        self, examples: BaseChannel, *, preset: str = "", **settings: Any
    ) -> None:
        chosen = TokenizerSettings(**settings)
        preset = preset if chosen.type == "preset" else ""
        path = chosen.path or ""
        super().__init__(
            TokenizerTrainerSpec(
                examples=examples,
                **{**chosen.model_dump(), "path": path},
                preset=preset,
                preset_hash=preset_hash(preset or path),
                source_hash=source_hash(executor.__name__),
                tokenizer=Channel(type=Tokenizer),
            )
        )
