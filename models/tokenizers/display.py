"""Tokens as people read them."""

from __future__ import annotations

from typing import Any

_SPECIAL_NAMES = {
    "pad_token_id": "<pad>",
    "unk_token_id": "<unk>",
    "start_token_id": "<s>",
    "end_token_id": "</s>",
}


def display_strings(tokenizer: Any) -> list[str]:
    """One readable string an id.

    A special is shown by its name; a token that is no valid UTF-8 by itself (a byte of
    a longer character) as the hexadecimal of its bytes, such as `<0xE2><0x82>`; any
    other token as the text it stands for.
    """
    strings = [_readable(surface) for surface in tokenizer.token_bytes()]
    for attribute, name in _SPECIAL_NAMES.items():
        strings[getattr(tokenizer, attribute)] = name
    return strings


def _readable(surface: bytes) -> str:
    try:
        return surface.decode("utf-8")
    except UnicodeDecodeError:
        return "".join(f"<0x{byte:02X}>" for byte in surface)
