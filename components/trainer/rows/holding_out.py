"""A share of a split's text that the members of a mixture do not learn from."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

import numpy as np

from ....models.learning.holding_out import held_out
from ...errors import InputError
from .windows import read_documents, read_lengths, write_like

LEARNED, HELD_OUT = "learned", "held_out"
"""The files of what is learned from and of the rest, beside the whole split's."""


def hold_out(path: str, share: float, context_length: int) -> None:
    """Deals a stream out to two beside it: what is learned from, and a share.

    Documents are held out evenly over the stream; of long ones it is pieces, of at most
    16 contexts. Where there is little text they are shorter, but a context long.

    Args:
        path: File that `TokenStream.write` has written.
        share: Of the text, about.
        context_length: Tokens of a context.

    Raises:
        InputError: Where there is no text for both.
    """
    lengths = np.maximum(read_lengths(path), 1)
    size = int(np.clip(lengths.sum() * share / 4, context_length, 16 * context_length))
    try:
        is_held = held_out(int(np.sum(-(-lengths // size))), share)
    except ValueError as error:
        raise InputError(
            "the training split has too little text for a mixture, whose weights are "
            f"learned on some that its members do not see: {lengths.sum()} tokens"
        ) from error
    for name, wanted in ((LEARNED, ~is_held), (HELD_OUT, is_held)):
        parts = _parts(read_documents(path), size, wanted)
        write_like(os.path.join(os.path.dirname(path), name), path, parts)


def _parts(
    documents: Iterable[np.ndarray], size: int, is_wanted: np.ndarray
) -> Iterator[np.ndarray]:
    """The wanted pieces of documents; those that follow each other are one."""
    number = 0
    for document in documents:
        pieces = -(-max(len(document), 1) // size)
        wanted = is_wanted[number : number + pieces].astype(int)
        number += pieces
        edges = np.flatnonzero(np.diff(wanted, prepend=0, append=0))
        for begin, end in edges.reshape(-1, 2) * size:
            yield document[begin:end]
