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
EXTRA_FOLDER = "assets.extra"
METADATA_FILE = f"{EXTRA_FOLDER}/langzoo.json"
WARMUP_FILE = f"{EXTRA_FOLDER}/tf_serving_warmup_requests"

MAX_STOPS = 4
MAX_BEAMS = 4
# The likeliest tokens that are told: after a text, and in the place of each token.
NEXT_TOKENS = 10
ALTERNATIVES = 5
MAX_ALTERNATIVES = 20
SPECIALS = 4
CALIBRATION_BINS = 15

T = TypeVar("T")
Text: TypeAlias = str | bytes
# One value for all rows, or one for each.
Each: TypeAlias = T | Sequence[T]
Whole: TypeAlias = Each[int] | None
Real: TypeAlias = Each[float] | None
# One string or several for all rows, or for each row one or several of its own.
Stop: TypeAlias = Text | Sequence[Text] | Sequence[Sequence[Text]] | None
# For each row the ids of tokens; as a tensor, in decimal with spaces between.
Ids: TypeAlias = Sequence[Sequence[int]] | None
Prefix: TypeAlias = Each[Text] | None


@dataclass(frozen=True)
class Setting:
    """What there is to say of an input that may be left out.

    Attributes:
        default: what holds for every row then; `None` is the export's own.
        meaning: in a sentence.
        lowest, highest: what is beyond means nothing, though the graph takes it.
        probe: what an export is tried with, if not the default.
        is_for_programs: whether a command line has no option for it.
    """

    default: Any
    meaning: str
    lowest: int | None = None
    highest: int | None = None
    probe: Any = None
    is_for_programs: bool = False


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
        is_needed: whether the gate refuses a model without it.
        method: which of TensorFlow Serving's methods answers it besides Predict.
    """

    name: str
    meaning: str
    inputs: Mapping[str, Tensor]
    outputs: Mapping[str, Tensor]
    is_needed: bool = True
    method: str = "predict"

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


_NEW_TOKENS = Setting(
    64, "The most tokens to write; the export's cap holds as well.", 0, probe=4
)
Stops = Annotated[
    Stop,
    Setting([""] * MAX_STOPS, f"The text ends before any of these; up to {MAX_STOPS}."),
]
PromptIds = Annotated[
    Ids,
    Setting(
        "",
        "Ids of tokens to continue in place of `prompt`, with no `<s>` put before.",
        is_for_programs=True,
    ),
]
_ALTERNATIVES = Setting(
    ALTERNATIVES,
    "The likeliest tokens that are told in each token's place.",
    0,
    MAX_ALTERNATIVES,
)


class WriteSettings(TypedDict, total=False):
    """How `generate` of any task writes; what is left out, or None, is its default.

    Each is one value for all prompts or a sequence with one for each. `stop` is a
    string or up to four, for all prompts or, as a sequence of sequences, for each.
    """

    temperature: Annotated[Real, Setting(1.0, "0 takes the likeliest token.")]
    top_k: Annotated[Whole, Setting(0, "Draw from the k likeliest tokens; 0: of all.")]
    top_p: Annotated[
        Real,
        Setting(1.0, "Draw from the fewest that are so likely together; 1: all.", 0, 1),
    ]
    repetition_penalty: Annotated[
        Real, Setting(1.0, "Divides the odds of tokens of prompt and text; 1: off.")
    ]
    presence_penalty: Annotated[
        Real, Setting(0.0, "Is taken from the logits of the text's tokens; 0: off.")
    ]
    frequency_penalty: Annotated[
        Real, Setting(0.0, "The same, as often as the text has them; 0: off.")
    ]
    stop: Stops
    seed: Annotated[Whole, Setting(0, "Same seed, same text.")]
    seed_offset: Annotated[
        Whole, Setting(0, "Tokens of this text that the seed has drawn before.")
    ]
    alternatives: Annotated[Whole, _ALTERNATIVES]


class SearchSettings(TypedDict, total=False):
    """How `beam_search` of any task searches; as `WriteSettings`."""

    num_beams: Annotated[
        Whole, Setting(MAX_BEAMS, f"Search for so many texts, up to {MAX_BEAMS}.", 1)
    ]
    length_penalty: Annotated[
        Real,
        Setting(1.0, "Rank by log-probability over length ** this; above 1: long."),
    ]
    stop: Stops


class _AfterPrompts(TypedDict, total=False):
    prompt_ids: PromptIds


class _OfSources(TypedDict, total=False):
    forced_prefix: Annotated[
        Prefix, Setting("", "The text begins with this, whatever the model would say.")
    ]


class GenerateSettings(WriteSettings, _AfterPrompts, total=False):
    """How `generate` of a causal model writes; see `WriteSettings`."""


class BeamSettings(SearchSettings, _AfterPrompts, total=False):
    """How `beam_search` of a causal model searches; see `WriteSettings`."""


class TargetSettings(WriteSettings, _OfSources, total=False):
    """How `generate` of a model that reads a source writes; see `WriteSettings`."""


class TargetBeamSettings(SearchSettings, _OfSources, total=False):
    """How `beam_search` of such a model searches; see `WriteSettings`."""


class AnyGenerateSettings(GenerateSettings, TargetSettings, total=False):
    """How `generate` writes; see `WriteSettings`. A model may not have all of them."""


class AnyBeamSettings(BeamSettings, TargetBeamSettings, total=False):
    """How `beam_search` searches; see `WriteSettings`. Likewise."""


class FillSettings(TypedDict, total=False):
    """What `fill_mask` tells; as `WriteSettings`."""

    alternatives: Annotated[
        Whole,
        Setting(
            ALTERNATIVES,
            "The likeliest pieces that are told for each mask.",
            1,
            MAX_ALTERNATIVES,
        ),
    ]


class CacheSettings(TypedDict, total=False):
    """The cache of `cache_scores`; as `WriteSettings`."""

    cache_size: Annotated[
        Whole, Setting(None, "Tokens that it holds, the last ones.", 0)
    ]
    cache_theta: Annotated[
        Real, Setting(None, "How much likeness of contexts counts; 0: all alike.", 0)
    ]
    cache_weight: Annotated[
        Real, Setting(None, "The cache's share of a token's probability.", 0, 1)
    ]


_KINDS: dict[Any, tuple[str, tuple[int, ...]]] = {
    Whole: ("int32", ()),
    Real: ("float32", ()),
    Stop: ("string", (MAX_STOPS,)),
    Ids: ("string", ()),
    Prefix: ("string", ()),
}


def _settings(dictionary: type) -> dict[str, Tensor]:
    """What a dictionary says."""
    settings = {}
    for name, hint in get_type_hints(dictionary, include_extras=True).items():
        kind, setting = get_args(hint)
        dtype, shape = _KINDS[kind]
        settings[name] = Tensor(dtype, setting.meaning, shape, setting)
    return settings


_MOST = {"max_new_tokens": Tensor("int32", _NEW_TOKENS.meaning, setting=_NEW_TOKENS)}

_TARGET_TOKENS = Setting(None, "The most tokens to write.", 0, probe=4)
_MOST_OF_TARGET = {
    "max_new_tokens": Tensor("int32", _TARGET_TOKENS.meaning, setting=_TARGET_TOKENS)
}


def _tensors(table: str) -> dict[str, Tensor]:
    """Of lines with name, dtype and what is behind the batch, and meaning."""
    tensors = {}
    for line in filter(str.strip, table.splitlines()):
        name, kind, meaning = line.split(maxsplit=2)
        dtype, _, sizes = kind.rstrip("]").partition("[")
        shape = (
            None if size == "n" else int(size) for size in sizes.split(",") if size
        )
        tensors[name] = Tensor(dtype, meaning, tuple(shape))
    return tensors


_TEXT = _tensors("text string of any bytes")
_PROMPT = _tensors(
    "prompt string what to continue, or as much as the context has room for"
)
_SOURCE = _tensors("prompt string the source: what to write to")
_PAIR = _tensors("""
    text             string   the source
    target           string   what is written to it
""")
_SUMS = _tensors("""
    nll              float32  nats of the tokens and of `</s>`
    spelling_nll     float32  nats to spell what is unknown, beyond `<unk>`
    tokens           int64    tokens and `</s>`
    bytes            int64    of the text in UTF-8
    words            int64    of the text, at white space
""")
_TOKENS = _tensors("""
    token            string[n]   each token, as it is shown
    log_probability  float32[n]  of each token, in nats
""")
_LENGTH = _tensors("length int32 how many tokens there are; `</s>` is the last")
_TOP = _tensors(f"""
    top_token            string[n,{ALTERNATIVES}]   the likeliest in each token's place
    top_log_probability  float32[n,{ALTERNATIVES}]  of each of these, in nats
""")
_TOP_ASKED = _tensors("""
    top_token            string[n,n]   the likeliest in each token's place
    top_log_probability  float32[n,n]  of each of these, in nats
""")
_ENDED = _tensors("""
    new_tokens       int32    tokens that the text has a part of, without `</s>`
    finish_reason    string   `stop` (at `</s>` or a stop string) or `length`
""")
_NEW = _tensors("token_id int32[n] each token")
_IDS = _tensors("token_ids string ids of tokens, in decimal with spaces between")

NEXT = Signature(
    "serving_default",
    "The likeliest next tokens after each text.",
    _TEXT,
    _tensors(f"""
    token            string[{NEXT_TOKENS}]   the likeliest first
    probability      float32[{NEXT_TOKENS}]  of each
    """),
)
SCORE = Signature("score", "How well the model predicts each text.", _TEXT, _SUMS)
TOKEN_SCORES = Signature(
    "token_scores",
    "How well the model predicts each token of each text.",
    _TEXT,
    _TOKENS | _LENGTH,
)
CACHE_SCORES = Signature(
    "cache_scores",
    "The same by a model that adapts: mixed with a cache over the text so far.",
    _TEXT | _settings(CacheSettings),
    _TOKENS | _LENGTH,
    is_needed=False,
)
TOKEN_ALTERNATIVES = Signature(
    "token_alternatives",
    "What `token_scores` says, and for each token what is likeliest in its place.",
    _TEXT,
    _TOKENS | _LENGTH | _TOP,
)
GENERATE = Signature(
    "generate",
    "Continues each prompt.",
    _PROMPT | _MOST | _settings(GenerateSettings),
    _tensors("text string the continuation, valid UTF-8")
    | _ENDED
    | _tensors("prompt_tokens int32 tokens of the prompt that were read")
    | _NEW
    | _TOKENS
    | _TOP_ASKED,
)
BEAM_SEARCH = Signature(
    "beam_search",
    "The likeliest continuations of each prompt, best first.",
    _PROMPT | _MOST | _settings(BeamSettings),
    _tensors(f"""
    text             string[{MAX_BEAMS}]   each continuation, valid UTF-8
    log_probability  float32[{MAX_BEAMS}]  of its tokens, in nats; -inf: no such beam
    score            float32[{MAX_BEAMS}]  that over its length ** `length_penalty`
    new_tokens       int32[{MAX_BEAMS}]    as of `generate`
    finish_reason    string[{MAX_BEAMS}]   as of `generate`
    """),
)
ID_ALTERNATIVES = Signature(
    "id_alternatives",
    "What `token_alternatives` says, of tokens as they are: of all but the first, on "
    "which the others depend, and of `</s>`.",
    _IDS
    | {"alternatives": Tensor("int32", _ALTERNATIVES.meaning, setting=_ALTERNATIVES)},
    _tensors("""
    log_probability      float32[n]  of each token, in nats
    top_id               int32[n]    the likeliest in each place, place after place
    top_log_probability  float32[n]  of each of these, in nats
    """)
    | _LENGTH,
)
TOKENIZE = Signature(
    "tokenize",
    "The tokens of each text, without `<s>` and `</s>`.",
    _TEXT,
    _tensors("""
    token_id         int32[n]  each token
    length           int32     how many tokens there are
    """),
)
DETOKENIZE = Signature(
    "detokenize",
    "The text of tokens, and each as it is shown.",
    _IDS,
    _tensors("""
    text             string    valid UTF-8, with the names of special tokens in it
    token            string[n] each token
    length           int32     how many tokens there are
    """),
)
MODEL_INFO = Signature(
    "model_info",
    "What the model takes, the same in each row.",
    _TEXT,
    _tensors(f"""
    context_length   int32     tokens that it can see, `<s>` among them
    max_new_tokens   int32     the most tokens that a request is given
    vocabulary_size  int32     ids are below it
    special_id       int32[{SPECIALS}]   for padding, unknown, start and end
    special_token    string[{SPECIALS}]  their names, as `tokenizer.json` has them
    """),
)
EMBED = Signature(
    "embed",
    "A vector for each text, of the model's hidden states.",
    _TEXT
    | {
        "token_ids": Tensor(
            "string",
            "Ids of tokens in place of `text`, with no `<s>` put before.",
            setting=Setting("", "", is_for_programs=True),
        )
    },
    _tensors("""
    embedding        float32[n]  of as many numbers as a hidden state has
    tokens           int32       that were read, without `<s>` before a text
    """),
)
_CALIBRATION = _tensors(f"""
    calibration      float32[{CALIBRATION_BINS},3]  by bins of the likeliest answer's \
probability, equally wide: answers, the sum of it, how often that one was right
""")
EVALUATE = Signature(
    "evaluate",
    "Sums over each document, of which metrics are made.",
    _tensors("examples string serialized `tf.train.Example`s with a `text`"),
    _SUMS
    | _tensors("""
    characters       int64    of the text, in Unicode
    unknown_tokens   int64    tokens that are `<unk>`
    correct_at_1     int64    tokens that were the likeliest
    correct_at_5     int64    tokens that were among the five likeliest
    """)
    | _CALIBRATION,
)

LABELS = Signature(
    "serving_default",
    "The labels of each text, the likeliest first.",
    _TEXT,
    _tensors("""
    label            string[n]   every label that there is
    probability      float32[n]  of each: of one among all, or where a text may have \
several, of each by itself
    """),
)
SCORE_LABEL = Signature(
    "score",
    "How likely a label is of each text.",
    _TEXT | _tensors("label string the label; of several, each on a line of its own"),
    _tensors("""
    log_probability  float32     in nats; -inf: there is no such label
    """),
)
CLASSIFY = Signature(
    "classify",
    "What `serving_default` says, for TensorFlow Serving's Classify and `:classify`.",
    _tensors("inputs string serialized `tf.train.Example`s with a `text`"),
    _tensors("""
    classes          string[n]   every label that there is, the likeliest first
    scores           float32[n]  the probability of each
    """),
    method="classify",
)
LABEL_INFO = Signature(
    "model_info",
    "What the model takes and says, the same in each row.",
    _TEXT,
    _tensors("""
    context_length   int32       tokens that it reads of a text
    vocabulary_size  int32       ids are below it
    label            string[n]   every label that there is
    multi_label      int32       1 where a text may have several, or none
    """),
)
EVALUATE_LABELS = Signature(
    "evaluate",
    "Sums over each document, of which metrics are made.",
    _tensors(
        "examples string serialized `tf.train.Example`s with a `text` and its `label`"
    ),
    _tensors("""
    nll              float32     nats of its labels, of those that are known
    labelled         int64       1 where `nll` is of something
    judged           int64       1 where it has a label at all
    unknown_labels   int64       labels of it that the model does not know
    correct          int64       1 where the answer is right
    by_label         float32[n,n]  for each label 1 or 0: whether it has it, is said \
to have it, and both; then, if it has it, each label that it is said to have
    """)
    | _CALIBRATION,
)
TAGS = Signature(
    "serving_default",
    "The tag of each word of each text.",
    _TEXT,
    _tensors("""
    word             string[n]   each word: what stands between white space
    tag              string[n]   of each
    probability      float32[n]  of each of these, among all tags
    length           int32       how many words there are
    """),
)
SCORE_TAGS = Signature(
    "score",
    "How likely tags are of the words of each text.",
    _TEXT | _tensors("tag string a tag for each word, with blanks in between"),
    _tensors("""
    log_probability  float32     in nats, of all together; -inf: there is no such tag, \
or not one for each word
    """),
)
TAG_INFO = Signature(
    "model_info",
    "What the model takes and says, the same in each row.",
    _TEXT,
    _tensors("""
    context_length   int32       tokens that it can see; a longer text is read in parts
    vocabulary_size  int32       ids are below it
    tag              string[n]   every tag that there is
    """),
)
EVALUATE_TAGS = Signature(
    "evaluate",
    "Sums over the words of each document, of which metrics are made.",
    _tensors(
        "examples string serialized `tf.train.Example`s with a `text` and a `tag` for \
each of its words"
    ),
    _tensors("""
    nll              float32     nats of the words' tags, of those that are known
    labelled         int64       words that `nll` is of
    judged           int64       words that have a tag at all
    unknown_labels   int64       tags of words that the model does not know
    correct          int64       words whose answer is right
    by_label         float32[n,n]  for each tag the words that have it, are said to \
have it, and both; then, of those that have it, how many are said to have each tag
    spans            int64       that the words' tags make
    said_spans       int64       that the answers make
    right_spans      int64       that both make: of one type, from one word to one word
    by_span          float32[n,3]  these three for each type, by its name
    """)
    | _CALIBRATION,
)
WRITE_TARGET = Signature(
    "serving_default",
    "What the model writes to each source, the likeliest token each time.",
    _tensors("text string the source"),
    _tensors("target string what is written, valid UTF-8") | _ENDED,
)
GENERATE_TARGET = Signature(
    "generate",
    "Writes to each source, which is read once, and cut if it is too long.",
    _SOURCE | _MOST_OF_TARGET | _settings(TargetSettings),
    _tensors("text string `forced_prefix` and what is written behind it, valid UTF-8")
    | _ENDED
    | _tensors("""
    prompt_tokens    int32    tokens of the source that were read, `</s>` among them
    unread_tokens    int32    those that were cut off it
    """)
    | _NEW
    | _TOKENS
    | _TOP_ASKED,
)
BEAM_SEARCH_TARGET = Signature(
    "beam_search",
    "The likeliest texts to each source, best first.",
    _SOURCE | _MOST_OF_TARGET | _settings(TargetBeamSettings),
    BEAM_SEARCH.outputs,
)
SCORE_TARGET = Signature(
    "score", "How well the model predicts each target, given its source.", _PAIR, _SUMS
)
TARGET_TOKEN_SCORES = Signature(
    "token_scores",
    "How well the model predicts each token of each target, given its source.",
    _PAIR,
    _TOKENS | _LENGTH,
)
SOURCE_INFO = Signature(
    "model_info",
    "What the model takes, the same in each row. Ids and their names are the target's.",
    _TEXT,
    {
        **MODEL_INFO.outputs,
        **_tensors("""
    context_length   int32     tokens of a target that it can see, `<s>` among them
    source_context_length  int32  tokens of a source, `</s>` among them
    """),
    },
)
EVALUATE_TARGET = Signature(
    "evaluate",
    "Sums over each target, given its source, of which metrics are made.",
    _tensors(
        "examples string serialized `tf.train.Example`s with a `text`, the source, and "
        "its `target`"
    ),
    {
        **EVALUATE.outputs,
        **_tensors(
            "cut_sources int64 1 where the source is longer than the model sees"
        ),
    },
)
# Inputs of signatures that are examples.
OF_EXAMPLES = {
    name
    for signature in (
        *(EVALUATE, EVALUATE_LABELS, EVALUATE_TAGS, EVALUATE_TARGET),
        CLASSIFY,
    )
    for name in signature.inputs
}

_GAPS = _tensors(
    "text string of any bytes, with the model's mask, such as `[MASK]`, for each gap"
)
_FILLED = _tensors("""
    masks            int32    how many the text has
    mask             string   what the model takes for one, the same in each row
""")
FILL = Signature(
    "serving_default",
    "The likeliest pieces for each mask of each text.",
    _GAPS,
    _FILLED
    | _tensors(f"""
    top_token            string[n,{ALTERNATIVES}]   for each mask, likeliest first
    top_log_probability  float32[n,{ALTERNATIVES}]  of each of these, in nats
    """),
)
FILL_MASK = Signature(
    "fill_mask",
    "The same, as many pieces as are asked for. Each mask is filled as if the others "
    "stayed.",
    _GAPS | _settings(FillSettings),
    _FILLED
    | _tensors("""
    top_token            string[n,n]   for each mask, likeliest first
    top_log_probability  float32[n,n]  of each of these, in nats
    """),
)
PSEUDO_SCORE = Signature(
    "score",
    "How well the tokens of each text fit each other; each is scored where it alone is "
    "hidden.",
    _TEXT,
    _tensors("""
    pseudo_nll       float32  nats of the tokens, which are no code of the text
    spelling_nll     float32  nats to spell what is unknown, beyond `<unk>`
    tokens           int64    tokens
    bytes            int64    of the text in UTF-8
    words            int64    of the text, at white space
    """),
)
PSEUDO_TOKEN_SCORES = Signature(
    "token_scores",
    "How well each token of each text fits the others.",
    _TEXT,
    _TOKENS | _tensors("length int32 how many tokens there are"),
)
MASKED_EVALUATE = Signature(
    "evaluate",
    "Sums over the tokens of each document that a hash of it hides, 15 % of them, of "
    "which metrics are made.",
    EVALUATE.inputs,
    {name: t for name, t in EVALUATE.outputs.items() if name != "spelling_nll"}
    | _tensors("""
    nll              float32  nats of the hidden tokens
    tokens           int64    that are hidden
    """),
)

# By task: what an export of it answers.
SIGNATURES: dict[str, tuple[Signature, ...]] = {
    "causal_lm": (
        NEXT,
        SCORE,
        TOKEN_SCORES,
        CACHE_SCORES,
        TOKEN_ALTERNATIVES,
        ID_ALTERNATIVES,
        GENERATE,
        BEAM_SEARCH,
        TOKENIZE,
        DETOKENIZE,
        EMBED,
        MODEL_INFO,
        EVALUATE,
    ),
    "masked_lm": (
        FILL,
        FILL_MASK,
        PSEUDO_SCORE,
        PSEUDO_TOKEN_SCORES,
        TOKENIZE,
        DETOKENIZE,
        EMBED,
        MODEL_INFO,
        MASKED_EVALUATE,
    ),
    "text_classifier": (
        LABELS,
        SCORE_LABEL,
        CLASSIFY,
        TOKENIZE,
        DETOKENIZE,
        EMBED,
        LABEL_INFO,
        EVALUATE_LABELS,
    ),
    "token_classifier": (
        TAGS,
        SCORE_TAGS,
        TOKENIZE,
        DETOKENIZE,
        EMBED,
        TAG_INFO,
        EVALUATE_TAGS,
    ),
    "seq_to_seq_lm": (
        WRITE_TARGET,
        SCORE_TARGET,
        TARGET_TOKEN_SCORES,
        GENERATE_TARGET,
        BEAM_SEARCH_TARGET,
        TOKENIZE,
        DETOKENIZE,
        SOURCE_INFO,
        EVALUATE_TARGET,
    ),
}


def inputs_of(name: str) -> dict[str, Tensor]:
    """The inputs of signatures of a name, those of all tasks."""
    return {
        key: tensor
        for signatures in SIGNATURES.values()
        for signature in signatures
        if signature.name == name
        for key, tensor in signature.inputs.items()
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
            own = tensor.setting.default is None
            default = "the export's" if own else f"`{tensor.setting.default}`"
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
