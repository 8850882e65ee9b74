"""How documents become the rows that a model is trained on, by task.

Importing this module imports neither TensorFlow nor Keras.
"""

from __future__ import annotations

from typing import NamedTuple

from ....models.tasks import CAUSAL_LM


class Rows(NamedTuple):
    """What makes rows of a task's documents; both are references to functions.

    Attributes:
        write: Writes the documents of a split into a file: from its path, the patterns
            of the transformed examples, the folder of the graph that made them, and the
            tokenizer.
        read: Makes batches of them, a `windows.TokenStream`: from the file's path, the
            context length and the packing.
    """

    write: str
    read: str


ROWS: dict[str, Rows] = {
    CAUSAL_LM.name: Rows(
        write="langzoo.components.trainer.rows.windows:write_documents",
        read="langzoo.components.trainer.rows.packing:make_windows",
    )
}
"""The rows of each task, by its name."""
