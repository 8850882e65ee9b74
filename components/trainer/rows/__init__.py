"""How documents become the rows that a model is trained on, by task.

Importing this module imports neither TensorFlow nor Keras.
"""

from __future__ import annotations

from typing import NamedTuple

from ....models.tasks import (
    CAUSAL_LM,
    MASKED_LM,
    SEQ_TO_SEQ_LM,
    TEXT_CLASSIFIER,
    TOKEN_CLASSIFIER,
)


class Rows(NamedTuple):
    """What makes rows of a task's documents, by references to functions.

    Attributes:
        write: Writes the documents of a split into a file: from its path, the patterns
            of the transformed examples, the folder of the graph that made them, and the
            tokenizer.
        read: Makes batches of them, a `windows.TokenStream`: from the file's path, the
            context length, the packing, the tokenizer, what the settings say, and with
            `has_sources` the context length of sources.
        figure: What the gate makes of a mean loss of the targets, in nats, about: from
            that, and `evaluation.Texts`.
        settings: The field of `TrainerSettings` that is of this task alone, if one is.
        of_model: What the task's models take besides a backbone and a preprocessor: a
            dictionary, from the folder of the graph, the family, and these settings.
        packs: Whether documents share rows, and settings say how.
        has_sources: Whether a model reads a source besides what it predicts.
    """

    write: str
    read: str
    figure: str
    settings: str = ""
    of_model: str = ""
    packs: bool = True
    has_sources: bool = False


ROWS: dict[str, Rows] = {
    CAUSAL_LM.name: Rows(
        write="langzoo.components.trainer.rows.windows:write_documents",
        read="langzoo.components.trainer.rows.packing:read_windows",
        figure="langzoo.components.trainer.rows.windows:bits_per_byte",
    ),
    MASKED_LM.name: Rows(
        write="langzoo.components.trainer.rows.windows:write_documents",
        read="langzoo.components.trainer.rows.masking:read_windows",
        figure="langzoo.components.trainer.rows.masking:nats",
        settings="masking",
    ),
    TEXT_CLASSIFIER.name: Rows(
        write="langzoo.components.trainer.rows.labelled:write_documents",
        read="langzoo.components.trainer.rows.labelled:read_rows",
        figure="langzoo.components.trainer.rows.labelled:cross_entropy",
        settings="classifier",
        of_model="langzoo.components.trainer.rows.labelled:of_model",
        packs=False,
    ),
    TOKEN_CLASSIFIER.name: Rows(
        write="langzoo.components.trainer.rows.tagged:write_documents",
        read="langzoo.components.trainer.rows.tagged:read_rows",
        figure="langzoo.components.trainer.rows.masking:nats",
        settings="tagger",
        of_model="langzoo.components.trainer.rows.tagged:of_model",
        packs=False,
    ),
    SEQ_TO_SEQ_LM.name: Rows(
        write="langzoo.components.trainer.rows.seq_to_seq:write_documents",
        read="langzoo.components.trainer.rows.seq_to_seq:read_rows",
        figure="langzoo.components.trainer.rows.windows:bits_per_byte",
        packs=False,
        has_sources=True,
    ),
}
"""The rows of each task, by its name."""
