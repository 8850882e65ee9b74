"""What text goes in, and how it is cleaned: sections of the configuration.

Importing this module imports neither TensorFlow nor TFX.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pydantic
from pydantic import Field

from ...models.references import PATTERN
from ...models.settings import PathText, Section
from . import demo_corpus, formats

# Columns without a name have a number, which YAML reads as one.
_FieldName = Annotated[
    str,
    pydantic.BeforeValidator(lambda name: str(name) if type(name) is int else name),
    Field(min_length=1),
]
_Length = Annotated[int, Field(ge=1)]
# Features of the examples, raw and transformed, and what is sliced by bytes.
_TAKEN = ("text", "id", "token_ids", "target_ids", "word_tokens", "length")
LABEL = "label"
"""The feature of the examples that has the labels of a document."""
TAG = "tag"
"""The feature that has a tag for each of its words."""
WORD_TOKENS = "word_tokens"
"""Of transformed examples with tags: how many tokens each word has."""
TARGET = "target"
"""The feature that has the text to be made of a text."""
TARGET_IDS = "target_ids"
"""Of transformed examples with targets: the tokens of these."""
TARGET_FIELDS = {LABEL: "label_field", TAG: "tags_field", TARGET: "target_field"}
"""The settings that name the fields of what is learned of texts, by the feature."""
_TEXT_FIELD = "text"
_BY_NO_FIELD = ("text", "file")


def _known_encoding(name: str) -> str:
    try:
        "".encode(name)
    except LookupError:
        raise ValueError(
            f"encoding {name!r} is none of Python's: such as utf-8, cp1252, latin-1"
        ) from None
    return name


_UNITS = ("bytes", "characters", "target_bytes", "target_characters")


class _Reading(Section):
    path: PathText = demo_corpus.NAME
    """A file, a folder (read recursively) or a pattern, plain or compressed (`.gz`,
    `.zst`), on any filesystem of Beam's or `s3://`; of `{SPAN}` and `{VERSION}` in it
    the highest number is read. Or a dataset, `hf://NAME:CONFIGURATION@SPLIT` or
    `tfds://NAME@SPLIT`. `demo` is Python's own documentation; `demo-kinds` is the same
    as records, each with the `kind` of what it documents; `demo-code` are Python's own
    functions as `words` and `tags`; `demo-summaries` are docstrings without their first
    line, which is the `summary`, as `text`."""
    format: Literal[
        "auto", "text", "json", "jsonl", "csv", "tsv", "parquet", "conll"
    ] = "auto"
    """`auto` goes by the ending of each file's name: `.json` (an array, or a record a
    line), `.jsonl`, `.ndjson`, `.csv`, `.tsv`, `.parquet`, `.conll` (a word a line,
    with its columns, and a blank line behind each document), before that of the
    compression; others are text. Of `.tar` and `.zip` each file in them is read."""
    encoding: Annotated[str, pydantic.AfterValidator(_known_encoding)] = "utf-8"
    """Of text, JSON, CSV and TSV: such as `cp1252`, `latin-1` or `utf-16-le`. A mark at
    the beginning of a file (UTF-8, UTF-16, UTF-32) goes before it."""
    delimiter: Annotated[str, Field(min_length=1, max_length=1)] | None = None
    """What stands between the columns of CSV and TSV, by default a comma or a tab."""
    documents: Literal["file", "paragraph", "line"] = "file"
    """What one document of a text file is, paragraphs being separated by blank lines;
    in other formats it is a record."""
    text_field: _FieldName = _TEXT_FIELD
    """The field or column that holds the text, where documents are records; `data.text`
    is the field `text` within the field `data`, here and in `fields`. Of CoNLL's files
    columns are numbers from 1, or from -1 at the end of a line, and the text is the
    first, unless it is told."""
    fields: dict[str, _FieldName] = {}
    """Fields or columns that travel with the text, by the name of the feature that they
    become, such as `{label: sentiment}`; as strings, into the transformed examples. A
    document whose field is null goes without."""
    label_field: _FieldName | None = None
    """The field or column that says what a classifier (`task: text_classifier`) is to
    learn of the text: a string, a number or a bool. It becomes the feature `label`; a
    document without one is none."""
    multi_label: bool = False
    """Whether a document has any number of labels: as a list, or as text with
    `label_separator` between them, where "" is none."""
    label_separator: Annotated[str, Field(min_length=1)] = ","
    """What stands between several labels in one text."""
    tags_field: _FieldName | None = None
    """The field or column that has a tag for each word (`task: token_classifier`), such
    as `B-PER`, `I-PER` and `O`. Words and tags are lists, or text with white space in
    between; the text is the words with blanks between them. The tags become the feature
    `tag`; a document with too few or too many is none."""
    target_field: _FieldName | None = None
    """The field or column that has the text to be made of the text (`task:
    seq_to_seq_lm`), such as its translation or summary. It becomes the feature
    `target`; a document without one is none."""
    split_by: _FieldName = "text"
    """What stays together in one split, as a hash of it decides: `text`, so that copies
    do, and all targets of one source; `file`, all documents of a file; or a field, all
    records with one value of it, such as `author`."""


SPLITS = ("train", "test", "eval")
"""The splits that there may be, in the order of their buckets: `train` has the first
and `eval` the last, so that a document stays in `eval` when there comes a `test` split,
which is taken from `train`."""

BUCKETS = 1000
"""Parts of the range of a hash that splits share."""


def _is_dataset(path: str) -> bool:
    return path.startswith(("hf://", "tfds://"))


_PLACES = ("path", "target")


class SourceSettings(_Reading):
    """Files of one kind, or a dataset. What is not given is as in the corpus."""

    path: PathText
    """As of the corpus."""
    target: PathText | None = None
    """A text file beside that of `path`, which may then be called `source`: line by
    line the targets of its lines, as in `{source: train.en, target: train.de}`. Another
    number of lines is an error; a line without a counterpart is skipped, and so are
    lines that are blank in both."""
    weight: Annotated[float, Field(gt=0, le=1000)] = 1.0
    """How often a document stands in the training split; 2.5 is twice, and half of the
    documents three times; 0.1 keeps a tenth of them. The document's hash decides. The
    other splits have each document once."""
    split: Literal["train", "eval", "test"] | None = None
    """Which split all its documents are for; by default a hash decides."""

    @property
    def split_field(self) -> str | None:
        """The field by whose values records are split."""
        return None if self.split_by in _BY_NO_FIELD else self.split_by

    @property
    def columns(self) -> list[str]:
        """The fields that are read of a record."""
        learned = (getattr(self, field) for field in TARGET_FIELDS.values())
        others = filter(None, (self.split_field, *learned))
        return sorted({self.text_field, *self.fields.values(), *others})

    @property
    def targets(self) -> set[str]:
        """The features that it has for a task to learn."""
        told = {name for name, field in TARGET_FIELDS.items() if getattr(self, field)}
        return told | {TARGET} if self.target else told

    @property
    def paths(self) -> list[str]:
        """Where it lies: its path, and that of its targets, where they have one."""
        return [self.path, self.target] if self.target else [self.path]

    def format_of(self, path: str) -> str:
        """How a file is read: as it is told, or as its name says."""
        return formats.kind_of(path).format if self.format == "auto" else self.format

    @property
    def means_records(self) -> bool:
        """Whether something is told that only records have."""
        return self.columns != [_TEXT_FIELD]

    @property
    def of_texts(self) -> dict[str, Any]:
        """What decides which documents there are, and how their texts read."""
        labels = {"label_field", "tags_field", "multi_label", "label_separator"}
        return self.model_dump(exclude={*_PLACES, "fields", "weight", *labels})

    @pydantic.model_validator(mode="before")
    @classmethod
    def _a_source_with_a_target_is_its_path(cls, content: Any) -> Any:
        if not isinstance(content, dict) or "source" not in content:
            return content
        if "path" in content or not content.get("target"):
            raise ValueError(
                f"corpus.sources: source {content['source']!r} is one of two text "
                "files side by side, {source: train.en, target: train.de}; all else "
                "has a path"
            )
        others = {key: value for key, value in content.items() if key != "source"}
        return {"path": content["source"], **others}

    @pydantic.model_validator(mode="before")
    @classmethod
    def _null_is_not_given(cls, content: Any) -> Any:
        if not isinstance(content, dict):
            return content
        return {
            key: value
            for key, value in content.items()
            if value is not None or key not in _Reading.model_fields
        }


class CorpusSettings(_Reading):
    """What text goes in."""

    sources: list[SourceSettings] = []
    """Several sources in one corpus, in place of `path`."""
    eval_fraction: Annotated[float, Field(ge=0.001, le=0.5)] = 0.1
    """Share of documents held out for evaluation, in steps of 0.001, of the sources
    without a split of their own; likewise below."""
    test_fraction: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    """Share of documents that neither training nor evaluation sees, as `test`."""
    allow_fewer_documents: bool = False
    """Whether to go on where the last run had ten times as many documents."""
    min_label_documents: Annotated[int, Field(ge=1)] = 2
    """The fewest documents of the training split that a label must have, or words of it
    that a tag must have."""
    strict: bool = False
    """Whether a file or record that cannot be used is an error instead of skipped."""

    @property
    def buckets(self) -> dict[str, int]:
        """The splits, and how many of the `BUCKETS` of a hash are each one's.

        A split has none where its documents are only those of sources that say so.
        """
        told = {source.split for source in self.all_sources}
        shares = {"eval": self.eval_fraction, "test": self.test_fraction}
        buckets = {name: round(share * BUCKETS) for name, share in shares.items()}
        buckets["train"] = BUCKETS - sum(buckets.values())
        if None not in told:
            buckets = dict.fromkeys(SPLITS, 0)
        return {name: buckets[name] for name in SPLITS if buckets[name] or name in told}

    @property
    def all_sources(self) -> list[SourceSettings]:
        """The sources, each with all that it takes from the corpus."""
        return self.sources or [self.reading(self.path)]

    def reading(self, path: str) -> SourceSettings:
        """A source elsewhere that is read as the corpus is."""
        told = self.model_dump(include={*_Reading.model_fields})
        return SourceSettings(**{**told, "path": path})

    @property
    def features(self) -> list[str]:
        """Features that the examples have besides the text."""
        named = {name for source in self.all_sources for name in source.fields}
        return sorted(named | self.targets)

    @property
    def sliced_by(self) -> list[str]:
        """Those of them that are of a document as a whole."""
        return [name for name in self.features if name not in self.targets - {LABEL}]

    @property
    def targets(self) -> set[str]:
        """Those of them that a task can learn."""
        return set().union(*(source.targets for source in self.all_sources))

    @pydantic.field_validator("sources")
    @classmethod
    def _sources_take_from_the_corpus(
        cls, sources: list[SourceSettings], told: pydantic.ValidationInfo
    ) -> list[SourceSettings]:
        shared = {
            name: told.data[name]
            for name in _Reading.model_fields
            if name in told.data and name != "path"
        }
        return [
            source.model_copy(
                update={
                    name: value
                    for name, value in shared.items()
                    if name not in source.model_fields_set
                }
            )
            for source in sources
        ]

    @pydantic.model_validator(mode="after")
    def _something_is_left_for_training(self) -> CorpusSettings:
        if self.eval_fraction + self.test_fraction > 0.999:
            raise ValueError(
                f"corpus.eval_fraction {self.eval_fraction} and corpus.test_fraction "
                f"{self.test_fraction} must leave documents for training"
            )
        return self

    @pydantic.model_validator(mode="after")
    def _splits_are_whole(self) -> CorpusSettings:
        told = {source.split for source in self.all_sources}
        missing = [name for name in ("train", "eval") if name not in self.buckets]
        if missing:
            raise ValueError(
                f"corpus.sources: all have a split, and none is {missing[0]}: training "
                "needs train, and evaluation eval"
            )
        if None not in told and self.test_fraction:
            raise ValueError(
                f"corpus.test_fraction {self.test_fraction} is of sources without a "
                "split, and all of corpus.sources have one"
            )
        for source in self.all_sources:
            by_file = source.split_by == "file" and not source.split
            if by_file and _is_dataset(source.path):
                raise ValueError(
                    f"corpus.split_by: {source.path} has no files to split by: text, "
                    "or the name of a field"
                )
        return self

    @pydantic.model_validator(mode="after")
    def _is_one_path_or_several_sources(self) -> CorpusSettings:
        if self.sources and self.path != demo_corpus.NAME:
            raise ValueError(
                f"corpus.path {self.path!r} and corpus.sources: give one of them"
            )
        return self

    @pydantic.model_validator(mode="after")
    def _sources_are_labelled_alike(self) -> CorpusSettings:
        if len(self.targets) > 1:
            given = [f"corpus.{TARGET_FIELDS[name]}" for name in sorted(self.targets)]
            raise ValueError(
                f"{' and '.join(given)}: give one, as a model learns either"
            )
        if TARGET in self.features and TARGET not in self.targets:
            raise ValueError(
                f"corpus.fields: the feature {TARGET} is that of corpus.target_field: "
                "take another name"
            )
        for feature in self.targets:
            key = TARGET_FIELDS[feature]
            for source in self.all_sources:
                if not source.targets:
                    raise ValueError(
                        f"corpus.sources: {source.path} has no {key}, and others have"
                    )
                if source.multi_label != self.all_sources[0].multi_label:
                    raise ValueError(
                        "corpus.sources: multi_label is of all of them, or of none"
                    )
                if feature in source.fields:
                    raise ValueError(
                        f"corpus.fields: the feature {feature} is that of corpus.{key}:"
                        " take another name"
                    )
        return self

    @pydantic.model_validator(mode="after")
    def _files_side_by_side_are_of_lines(self) -> CorpusSettings:
        for source in self.all_sources:
            if not source.target:
                continue
            told = {
                "documents paragraph": source.documents == "paragraph",
                f"format {source.format}": source.format not in ("auto", formats.TEXT),
                "text_field, target_field, fields, label_field, tags_field, and "
                "split_by a field,": source.means_records,
                "a dataset": any(map(_is_dataset, source.paths)),
            }
            for what, is_told in told.items():
                if is_told:
                    raise ValueError(
                        f"corpus.sources: {source.path} and its target "
                        f"{source.target} are text, line by line, and {what} is of "
                        "other sources: leave it out"
                    )
        return self

    @pydantic.model_validator(mode="after")
    def _fields_have_names_of_their_own(self) -> CorpusSettings:
        for name in self.features:
            if not name.isidentifier() or name in _TAKEN:
                raise ValueError(
                    f"corpus.fields: {name!r} cannot be the name of a feature: it is "
                    f"one word, none of {', '.join(_TAKEN)}, such as label; the field "
                    "or column may be called so, as in {label: " + name + "}"
                )
        return self


class CleaningSettings(Section):
    """What is done to documents before they are split, in this order.

    What changes texts does so to targets, too.
    """

    normalize: Literal["NFC", "NFKC"] | None = None
    """Unicode normalization form."""
    remove_control_characters: bool = False
    """All but newline and tab; those that count as white space, such as a form feed,
    become a space."""
    mask_emails: bool = False
    """Whether `[EMAIL]` takes the place of e-mail addresses."""
    mask_phones: bool = False
    """Whether `[PHONE]` takes the place of phone numbers: those with a `+`, or with an
    area code and separators. A bare run of digits stays."""
    min_bytes: _Length | None = None
    """Shorter documents are dropped. Bytes are those of UTF-8."""
    max_bytes: _Length | None = None
    """Longer documents are dropped."""
    min_characters: _Length | None = None
    """Documents of fewer are dropped."""
    max_characters: _Length | None = None
    """Documents of more are dropped."""
    min_target_bytes: _Length | None = None
    """Of documents with a target, those with a shorter one are dropped; what is said
    above is of their sources."""
    max_target_bytes: _Length | None = None
    """Those with a longer one are dropped."""
    min_target_characters: _Length | None = None
    """Those with one of fewer are dropped."""
    max_target_characters: _Length | None = None
    """Those with one of more are dropped."""
    max_length_ratio: Annotated[float, Field(ge=1)] | None = None
    """Of documents with a target, those are dropped of which one side has more than so
    many times the characters of the other."""
    drop_copies: bool = False
    """Whether documents whose target is their source are dropped, but for the case of
    letters and white space."""
    filter: Annotated[str, Field(pattern=PATTERN)] | None = None
    """A function of yours, `module:function`, from a text to a bool or a score, each
    time the same for the same text; from two texts, source and target, where documents
    have targets."""
    filter_threshold: float = 0.5
    """Documents that score less are dropped; a bool counts 0 or 1."""
    drop_duplicates: bool = False
    """Of documents equal in text, target and fields keeps the one with the smallest id;
    where sources have splits, here and below, one of `test` or `eval` before those of
    `train`."""
    drop_near_duplicates: bool = False
    """Of documents much alike keeps the one with the smallest id (MinHash); also drops
    exact duplicates."""
    duplicate_fields: list[str] | None = None
    """Features of `corpus.fields`, and `target`, in which duplicates, exact and near,
    are equal: all where it is not given, none where it is `[]`."""
    near_duplicate_threshold: Annotated[float, Field(ge=0.3, lt=1)] = 0.8
    """Share of their shingles that near duplicates have in common (Jaccard)."""
    shingles: Literal["words", "characters"] = "words"
    """What a shingle is made of; languages without spaces need characters."""
    shingle_length: Annotated[int, Field(ge=1, le=100)] = 5
    """Words, or characters, in a shingle."""

    @property
    def steps(self) -> list[str]:
        """Names of the counts of those steps that are on; empty where none is."""
        rewrites = {
            "normalized": self.normalize,
            "control_characters": self.remove_control_characters,
            "emails": self.mask_emails,
            "phones": self.mask_phones,
        }
        switches = {
            **rewrites,
            "empty": any(rewrites.values()),
            "too_short": any(getattr(self, f"min_{unit}") for unit in _UNITS),
            "too_long": any(getattr(self, f"max_{unit}") for unit in _UNITS),
            "unlike_lengths": self.max_length_ratio,
            "copies": self.drop_copies,
            "filtered": self.filter,
            "duplicates": self.drop_duplicates or self.drop_near_duplicates,
            "near_duplicates": self.drop_near_duplicates,
        }
        return [name for name, on in switches.items() if on]

    @property
    def of_pairs(self) -> list[str]:
        """Those of its settings that are given and of documents with a target alone."""
        names = [f"{end}_{unit}" for unit in _UNITS[2:] for end in ("min", "max")]
        names += ["max_length_ratio", "drop_copies"]
        return [name for name in names if getattr(self, name)]

    @property
    def of_texts(self) -> dict[str, Any]:
        """What decides how a document's text reads, or which of several alike it is.

        Other steps drop documents, and leave those that stay in their splits.
        """
        drops = {"filter", "filter_threshold", "drop_duplicates"}
        drops |= {"max_length_ratio", "drop_copies"}
        drops |= {f"{end}_{unit}" for end in ("min", "max") for unit in _UNITS}
        if not self.drop_near_duplicates:
            drops |= {"near_duplicate_threshold", "shingles", "shingle_length"}
        return self.model_dump(exclude=drops)

    @pydantic.model_validator(mode="after")
    def _some_length_is_allowed(self) -> CleaningSettings:
        for unit in _UNITS:
            least, most = getattr(self, f"min_{unit}"), getattr(self, f"max_{unit}")
            if least and most and least > most:
                raise ValueError(
                    f"cleaning.min_{unit} {least} must be at most cleaning.max_{unit} "
                    f"{most}"
                )
        return self
