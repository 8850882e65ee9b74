"""Texts as people type them, and as programs mangle them."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable

from .samples import sample
from .settings import ProbeSettings

PERTURBATIONS = {
    "noise": "typing errors (swapped, dropped, inserted and neighbouring keys)",
    "lower": "all letters made lower-case",
    "upper": "all letters made upper-case",
    "whitespace": "some runs of white space doubled, or made a tab or a line break",
}
"""What each perturbation does, by name."""
# Each row of keys begins so far to the right of the first, in widths of a key.
_ROWS = {"qwertyuiop": 0.0, "asdfghjkl": 0.25, "zxcvbnm": 0.75}
_REACH = 1.26
_WHITE_SPACE = re.compile(r"\s+")


def _neighbours() -> dict[str, str]:
    places = {
        key: (column + offset, row)
        for row, (keys, offset) in enumerate(_ROWS.items())
        for column, key in enumerate(keys)
    }
    lower = {
        key: "".join(
            other
            for other, (column, row) in places.items()
            if other != key
            and (column - places[key][0]) ** 2 + (row - places[key][1]) ** 2
            <= _REACH**2
        )
        for key in places
    }
    return lower | {key.upper(): others.upper() for key, others in lower.items()}


NEIGHBOURS = _neighbours()
"""The letters beside each letter on a QWERTY keyboard, in its own case."""


def noise(text: str, rate: float, chance: random.Random) -> str:
    """Makes a typing error at each character but white space with probability `rate`.

    All that are possible there are equally likely: the character and the next, where
    that is no white space either, change places; it is left out; a neighbouring key is
    hit besides it; or instead of it. A character that is not on the keyboard is hit
    twice where it would get a neighbour, and not replaced.

    Args:
        text: Any text.
        rate: From 0 to 1.
        chance: Where the errors come from.

    References:
        - [Belinkov and Bisk, 2018](https://arxiv.org/abs/1711.02173): swaps and
          keyboard errors.
        - [Pruthi et al., 2019](https://arxiv.org/abs/1905.11268): swaps, drops,
          insertions and keyboard errors.
    """
    pieces = []
    place = 0
    while place < len(text):
        character, following = text[place], text[place + 1 : place + 2]
        place += 1
        if character.isspace() or chance.random() >= rate:
            pieces.append(character)
            continue
        neighbour = chance.choice(NEIGHBOURS.get(character, character))
        errors = [("", 0), (character + neighbour, 0)]  # and how many more are used up
        if neighbour != character:
            errors.append((neighbour, 0))
        if following.strip():
            errors.append((following + character, 1))
        error, more = chance.choice(errors)
        pieces.append(error)
        place += more
    return "".join(pieces)


def other_white_space(text: str, rate: float, chance: random.Random) -> str:
    """Changes each run of white space with probability `rate`.

    It becomes, equally likely, itself twice, a tab or a line break, whichever it is not
    already. Words stay apart.

    Args:
        text: Any text.
        rate: From 0 to 1.
        chance: Where the changes come from.

    References:
        - [Dhole et al., 2021](https://arxiv.org/abs/2112.02721): perturbation of white
          space among the tasks of NL-Augmenter.
    """

    def change(found: re.Match[str]) -> str:
        run = found.group()
        if chance.random() >= rate:
            return run
        return chance.choice([other for other in (run * 2, "\t", "\n") if other != run])

    return _WHITE_SPACE.sub(change, text)


def perturbations(
    noise_rate: float, whitespace_rate: float, seed: int
) -> dict[str, Callable[[str], str]]:
    """All perturbations by name. What becomes of a text depends on it and the seed."""

    def chance(text: str) -> random.Random:
        return random.Random(f"{seed} {text}")

    return {
        "noise": lambda text: noise(text, noise_rate, chance(text)),
        "lower": str.lower,
        "upper": str.upper,
        "whitespace": lambda text: other_white_space(
            text, whitespace_rate, chance(text)
        ),
    }


def perturbed(
    texts: Iterable[str], settings: ProbeSettings
) -> tuple[list[str], dict[str, list[str]]]:
    """The beginnings of a sample of texts, and what each perturbation makes of them.

    Args:
        texts: Documents, of which some are taken.
        settings: How many, how much of them, and the rates.
    """
    chosen = sample(texts, settings.documents, settings.seed, str.strip)
    clean = [text[: settings.characters] for text in chosen]
    changes = perturbations(
        settings.noise_rate, settings.whitespace_rate, settings.seed
    )
    return clean, {
        name: [change(text) for text in clean] for name, change in changes.items()
    }
