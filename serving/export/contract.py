"""What an export promises: its files, and every signature's inputs and outputs.

All of it is stated here alone. The graph is built by this table and an export is tried
by it; clients, gateway, command line and the reference page read what they need to
know. It takes nothing to import but Python.

A setting is a key of a typed dictionary, because editors and type checkers read no
other table: its name and what it takes are the key and the type, all else is its
`Setting`. The signatures' inputs are made of these dictionaries.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import (
    Annotated,
    Any,
    TypeAlias,
    TypedDict,
    TypeVar,
    get_args,
    get_type_hints,
)

SAVED_MODEL_FILE = "saved_model.pb"
METADATA_FILE = "assets.extra/langzoo.json"
WARMUP_FILE = "assets.extra/tf_serving_warmup_requests"

MAX_STOPS = 4
MAX_BEAMS = 4
# The likeliest tokens that are told: after a text, and in the place of each token.
NEXT_TOKENS = 10
ALTERNATIVES = 5
CALIBRATION_BINS = 15

T = TypeVar("T")
Text: TypeAlias = str | bytes
# One value for all rows, or one for each.
Each: TypeAlias = T | Sequence[T]
Whole: TypeAlias = Each[int] | None
Real: TypeAlias = Each[float] | None
# One string or several for all rows, or for each row one or several of its own.
Stop: TypeAlias = Text | Sequence[Text] | Sequence[Sequence[Text]] | None


@dataclass(frozen=True)
class Setting:
    """What there is to say of an input that may be left out.

    Attributes:
        default: what holds for every row then.
        meaning: in a sentence.
        lowest, highest: what is beyond means nothing, though the graph takes it.
        probe: what an export is tried with, if not the default.
    """

    default: Any
    meaning: str
    lowest: int | None = None
    highest: int | None = None
    probe: Any = None


@dataclass(frozen=True)
class Tensor:
    """An input or an output.

    Attributes:
        dtype: as TensorFlow names it.
        meaning: in a sentence, or a part of one.
        shape: behind the batch; None is any size.
        setting: of an input that may be left out.
    """

    dtype: str
    meaning: str
    shape: tuple[int | None, ...] = ()
    setting: Setting | None = None


@dataclass(frozen=True)
class Signature:
    """What is asked of a model, and what it answers.

    Attributes:
        name: of the signature.
        meaning: what it does, in a sentence.
        inputs: by name; all have the batch as first dimension, and so have outputs.
        outputs: by name.
    """

    name: str
    meaning: str
    inputs: Mapping[str, Tensor]
    outputs: Mapping[str, Tensor]

    @property
    def settings(self) -> dict[str, Setting]:
        """The inputs that may be left out."""
        return {
            name: tensor.setting
            for name, tensor in self.inputs.items()
            if tensor.setting is not None
        }

    @property
    def required(self) -> list[str]:
        """The inputs that must be given."""
        return [name for name, tensor in self.inputs.items() if not tensor.setting]


Stops = Annotated[
    Stop,
    Setting([""] * MAX_STOPS, f"The text ends before any of these; up to {MAX_STOPS}."),
]


class GenerateSettings(TypedDict, total=False):
    """How `generate` writes; what is left out, or None, is the model's default.

    Each is one value for all prompts or a sequence with one for each. `stop` is a
    string or up to four, for all prompts or, as a sequence of sequences, for each.
    """

    temperature: Annotated[Real, Setting(1.0, "0 takes the likeliest token.")]
    top_k: Annotated[
        Whole, Setting(0, "Draw from the k likeliest tokens; 0 turns it off.")
    ]
    top_p: Annotated[
        Real,
        Setting(
            1.0,
            "Draw from the fewest tokens that have this probability together; 1 turns "
            "it off.",
            lowest=0,
            highest=1,
        ),
    ]
    repetition_penalty: Annotated[
        Real,
        Setting(1.0, "Divides the odds of what prompt and text hold already; 1: off."),
    ]
    presence_penalty: Annotated[
        Real,
        Setting(0.0, "Is taken from the logit of what the text holds already; 0: off."),
    ]
    frequency_penalty: Annotated[
        Real, Setting(0.0, "The same, as often as the text holds it; 0: off.")
    ]
    stop: Stops
    seed: Annotated[Whole, Setting(0, "Same seed, same text.")]
    seed_offset: Annotated[
        Whole,
        Setting(
            0, "How many tokens of this text earlier requests have drawn with the seed."
        ),
    ]


class BeamSettings(TypedDict, total=False):
    """How `beam_search` searches; as `GenerateSettings`."""

    num_beams: Annotated[
        Whole,
        Setting(
            MAX_BEAMS,
            f"How many continuations are followed, up to {MAX_BEAMS}, and given back.",
            lowest=1,
        ),
    ]
    length_penalty: Annotated[
        Real,
        Setting(
            1.0,
            "Beams are ranked by log-probability over length to the power of this; "
            "above 1 favours long texts.",
        ),
    ]
    stop: Stops


_TENSORS: dict[Any, tuple[str, tuple[int, ...]]] = {
    Whole: ("int32", ()),
    Real: ("float32", ()),
    Stop: ("string", (MAX_STOPS,)),
}


def _text(name: str, meaning: str, dictionary: type | None = None) -> dict[str, Tensor]:
    """The inputs of a signature: a text and, with a dictionary, its settings."""
    inputs = {name: Tensor("string", meaning)}
    if dictionary is not None:
        setting = Setting(
            64,
            "The most tokens to write; the export's cap holds as well.",
            lowest=0,
            probe=4,
        )
        inputs["max_new_tokens"] = Tensor("int32", setting.meaning, setting=setting)
        for key, hint in get_type_hints(dictionary, include_extras=True).items():
            kind, setting = get_args(hint)
            dtype, shape = _TENSORS[kind]
            inputs[key] = Tensor(dtype, setting.meaning, shape, setting)
    return inputs


_TEXT = _text("text", "of any bytes")
_PROMPT = "what to continue; its last tokens, where it is longer than the context"
_SUMS = {
    "nll": Tensor("float32", "nats of the tokens and of `</s>`"),
    "spelling_nll": Tensor("float32", "nats to spell what is unknown, beyond `<unk>`"),
    "tokens": Tensor("int64", "tokens and `</s>`"),
    "bytes": Tensor("int64", "of the text in UTF-8"),
    "words": Tensor("int64", "of the text, at white space"),
}
_TOKENS = {
    "token": Tensor("string", "each token, as it is shown", (None,)),
    "log_probability": Tensor("float32", "of each token, in nats", (None,)),
}
_LENGTH = {"length": Tensor("int32", "how many tokens there are; `</s>` is the last")}
_TOP = {
    "top_token": Tensor(
        "string", "the likeliest in the place of each token", (None, ALTERNATIVES)
    ),
    "top_log_probability": Tensor(
        "float32", "their log-probabilities, in nats", (None, ALTERNATIVES)
    ),
}
_WRITTEN = {
    "text": ("string", "the continuation, valid UTF-8"),
    "new_tokens": ("int32", "tokens that the text has a part of, without `</s>`"),
    "finish_reason": ("string", "`stop` (at `</s>` or a stop string) or `length`"),
}

NEXT = Signature(
    "serving_default",
    "The likeliest next tokens after each text.",
    _TEXT,
    {
        "token": Tensor("string", "the likeliest first", (NEXT_TOKENS,)),
        "probability": Tensor("float32", "of each", (NEXT_TOKENS,)),
    },
)
SCORE = Signature("score", "How well the model predicts each text.", _TEXT, _SUMS)
TOKEN_SCORES = Signature(
    "token_scores",
    "How well the model predicts each token of each text.",
    _TEXT,
    _TOKENS | _LENGTH,
)
TOKEN_ALTERNATIVES = Signature(
    "token_alternatives",
    "The same, and for each token what is likeliest in its place.",
    _TEXT,
    _TOKENS | _LENGTH | _TOP,
)
GENERATE = Signature(
    "generate",
    "Continues each prompt.",
    _text("prompt", _PROMPT, GenerateSettings),
    {
        **{name: Tensor(*what) for name, what in _WRITTEN.items()},
        "prompt_tokens": Tensor("int32", "tokens of the prompt that were read"),
        **_TOKENS,
        **_TOP,
    },
)
BEAM_SEARCH = Signature(
    "beam_search",
    "The likeliest continuations of each prompt, best first.",
    _text("prompt", _PROMPT, BeamSettings),
    {
        **{name: Tensor(*what, (MAX_BEAMS,)) for name, what in _WRITTEN.items()},
        "log_probability": Tensor(
            "float32", "of all its tokens, in nats; -inf: no such beam", (MAX_BEAMS,)
        ),
        "score": Tensor(
            "float32", "that over its length ** `length_penalty`", (MAX_BEAMS,)
        ),
    },
)
EVALUATE = Signature(
    "evaluate",
    "Sums over each document, of which metrics are made.",
    {"examples": Tensor("string", "serialized `tf.train.Example`s with a `text`")},
    {
        **_SUMS,
        "characters": Tensor("int64", "of the text, in Unicode"),
        "unknown_tokens": Tensor("int64", "tokens that are `<unk>`"),
        "correct_at_1": Tensor("int64", "tokens that were the likeliest"),
        "correct_at_5": Tensor("int64", "tokens that were among the five likeliest"),
        "calibration": Tensor(
            "float32",
            "by bins of the likeliest token's probability, equally wide: tokens, the "
            "sum of that probability, how often that token was right",
            (CALIBRATION_BINS, 3),
        ),
    },
)

# By task: what an export of it answers.
SIGNATURES: dict[str, tuple[Signature, ...]] = {
    "causal_lm": (
        NEXT,
        SCORE,
        TOKEN_SCORES,
        TOKEN_ALTERNATIVES,
        GENERATE,
        BEAM_SEARCH,
        EVALUATE,
    )
}


def probe_of(name: str) -> Any:
    """What an input of this name is tried with, if it is not a text; else None."""
    settings = (
        signature.settings.get(name)
        for signatures in SIGNATURES.values()
        for signature in signatures
    )
    return next((setting.probe for setting in settings if setting), None)


def reference() -> str:
    """The table in Markdown, for people."""
    return "\n".join(
        line
        for task, signatures in SIGNATURES.items()
        for line in [
            f"## `{task}`",
            *(line for signature in signatures for line in _section(signature)),
        ]
    )


def _section(signature: Signature) -> Iterator[str]:
    yield from ("", f"### `{signature.name}`", "", signature.meaning, "")
    yield from ("| input | tensor | default | |", "|---|---|---|---|")
    for name, tensor in signature.inputs.items():
        default, meaning = "", tensor.meaning
        if tensor.setting is not None:
            default = f"`{tensor.setting.default}`"
            meaning += _range(tensor.setting)
        yield f"| `{name}` | {_kind(tensor)} | {default} | {meaning} |"
    yield from ("", "| output | tensor | |", "|---|---|---|")
    for name, tensor in signature.outputs.items():
        yield f"| `{name}` | {_kind(tensor)} | {tensor.meaning} |"


def _range(setting: Setting) -> str:
    if setting.lowest is None:
        return ""
    return f" From {setting.lowest}" + (
        "." if setting.highest is None else f" to {setting.highest}."
    )


def _kind(tensor: Tensor) -> str:
    sizes = ["b", *("n" if size is None else str(size) for size in tensor.shape)]
    return f"{tensor.dtype} `[{', '.join(sizes)}]`"
