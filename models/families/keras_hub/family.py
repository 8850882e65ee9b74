"""The models of KerasHub.

Importing this module imports neither TensorFlow nor Keras.
"""

from __future__ import annotations

import json
from pathlib import Path

import pydantic

from ...settings import PathText
from ..family import Family, FamilySettings


class KerasHubSettings(FamilySettings):
    """A model of KerasHub: a causal or masked language model, BART or T5, or any for
    labels."""

    preset: PathText
    """A folder, or a name or handle (`hf://...`) that KerasHub knows."""
    pretrained: bool = False
    """Whether to start from the preset's weights, which need its tokenizer
    (`tokenizer.type: preset`); otherwise they are drawn anew."""

    @pydantic.model_validator(mode="after")
    def _folder_holds_a_preset(self) -> KerasHubSettings:
        folder = Path(self.preset)
        is_path = "://" not in self.preset and len(folder.parts) > 1
        if not folder.is_dir() and not is_path:
            return self
        try:
            content = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            positions = content.get("config", {}).get("max_sequence_length")
        except (OSError, ValueError, AttributeError) as error:
            raise ValueError(
                f"model.preset {self.preset!r} is no folder with a KerasHub preset: "
                f"{error}"
            ) from error
        if self.pretrained and positions and self.context_length > positions:
            raise ValueError(
                f"model.context_length {self.context_length} must be at most the "
                f"{positions} positions of the preset {self.preset!r}"
            )
        return self


_CLASSES = "langzoo.models.families.keras_hub"
KERAS_HUB = Family(
    name="keras_hub",
    settings=KerasHubSettings,
    tasks={
        "causal_lm": f"{_CLASSES}.presets:build_from_preset",
        "masked_lm": f"{_CLASSES}.masked_lm:build_masked_lm",
        "seq_to_seq_lm": f"{_CLASSES}.seq_to_seq_lm:build_seq_to_seq_lm",
        "text_classifier": f"{_CLASSES}.classifiers:build_classifier",
        "token_classifier": f"{_CLASSES}.classifiers:build_tagger",
    },
    search_space={
        "trainer.learning_rate": {"min": 0.00001, "max": 0.003, "sampling": "log"},
        "trainer.weight_decay": [0.0, 0.01, 0.1],
        "trainer.warmup_steps": [10, 50],
    },
    multiplies_output_weights=False,
    fills_gaps=True,
)
