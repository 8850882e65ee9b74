"""The Transformer encoder, and what makes it BERT.

Importing this module imports neither TensorFlow nor Keras.
"""

from __future__ import annotations

import functools
from typing import Any

from ...learning.recipe import Recipe
from ..family import Family, Imported, Preset
from ..transformer.family import TransformerSettings


class BertSettings(TransformerSettings):
    """A Transformer encoder."""


ARCHITECTURES: dict[str, dict[str, Any]] = {
    "bert": {
        "activation": "gelu",
        "positions": "learned",
        "normalization": "layer_norm",
        "norm_epsilon": 1e-12,
        "post_norm": True,
        "use_bias": True,
        "dropout": 0.1,
    },
}
"""What makes the encoder that of the paper, but for its segments, of which there is
one; the defaults are of today: norms before, rotary positions, gated activations.

References:
    - [Devlin et al., 2018](https://arxiv.org/abs/1810.04805)
    - [Warner et al., 2024](https://arxiv.org/abs/2412.13663) (ModernBERT)
"""

_encoder = functools.partial(Preset.of, BertSettings, "bert")
_bert = functools.partial(_encoder, **ARCHITECTURES["bert"])
_BASE: dict[str, Any] = {"num_layers": 12, "num_heads": 12, "hidden_dim": 768}

BERT = Family(
    name="bert",
    settings=BertSettings,
    backbone="langzoo.models.families.bert.backbone:BertBackbone",
    recipe=Recipe(learning_rate=2e-3),
    presets={
        "encoder_tiny": _encoder(),
        "encoder_base": _encoder(1024, 32_000, **_BASE),
        "bert_tiny": _bert(num_layers=4, num_heads=4, hidden_dim=128),
        "bert_base": _bert(512, 30_522, "Devlin et al., 2018", **_BASE),
    },
    search_space={
        "trainer.learning_rate": {"min": 0.0005, "max": 0.005, "sampling": "log"},
        "model.num_layers": [3, 4, 6],
        "model.num_heads": [2, 4, 8],
        "model.hidden_dim": [128, 192],
        "model.dropout": {"min": 0.0, "max": 0.2, "step": 0.1},
    },
    hugging_face={
        "bert": Imported(
            hyperparameters="langzoo.models.families.bert.hugging_face:hyperparameters",
            weights="langzoo.models.importing.hugging_face_bert:load_weights",
        )
    },
    shows_attention=True,
    predicts_next=False,
    fills_gaps=True,
)
