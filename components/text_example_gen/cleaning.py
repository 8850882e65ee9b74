"""Cleaning of documents on Beam: each step is optional, and counts what it does."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal

import apache_beam as beam
import numpy as np
from apache_beam.pvalue import AsSingleton

from ...models import references
from ..errors import InputError
from ..scratch import read_json, write_one
from ..source import source_hash
from .documents import Document
from .near_duplicates import FindNearDuplicates, MinHash, counting, hash_of
from .repeated_keys import RepeatedKeys, Sieve
from .settings import CleaningSettings

EMAIL_MASK = "[EMAIL]"
PHONE_MASK = "[PHONE]"

_EMAIL = re.compile(
    r"(?<![\w.%+-])[\w.%+-]{1,64}@(?:[^\W_](?:[\w-]{0,62}\.)){1,8}[^\W\d_]{2,24}\b"
)
_PHONE = re.compile(
    r"""(?<![\w+.,/-])(?:
      \+[1-9](?:[ ./()-]{0,2}\d){7,14}                     # +49 (0)30 1234567
    | \(\d{2,5}\)[ -]?\d{2,5}(?:[ -]?\d{2,5}){1,3}         # (030) 123 4567
    | (?=0(?:[ /-]?\d){8})0\d{2,4}(?:[ /-]\d{2,8}){1,4}    # 030/123 4567
    | 0\d(?P<pair>[ .-])\d{2}(?:(?P=pair)\d{2}){3}         # 01 23 45 67 89
    | (?:1[ .-])?[2-9]\d{2}(?P<area>[ .-])[2-9]\d{2}(?P=area)\d{4}  # 212-555-0123
    )(?![\w/:]|[.,-]\d)""",
    re.VERBOSE,
)
# A form feed between two words must not join them.
_CONTROL_CHARACTERS = {
    code: " " if chr(code).isspace() else None
    for code in range(0xA0)
    if unicodedata.category(chr(code)) == "Cc" and chr(code) not in "\n\t"
}

_BATCH = 512  # digests that are looked at together
_STAYS = ("test", "eval", "train", "")  # splits that sources say, in this order
_COUNTED = "counted"
_FAILED = "failed"
_CHANGED = {
    "normalized": "normalized",
    "control_characters": "rid of control characters",
    "emails": "with e-mail addresses masked",
    "phones": "with phone numbers masked",
}
_DROPPED = {
    "empty": "empty",
    "too_short": "too short",
    "too_long": "too long",
    "unlike_lengths": "with a target of unlike length",
    "copies": "with a copy for a target",
    "filtered": "by the filter",
    "duplicates": "duplicates",
    "near_duplicates": "near duplicates",
}


def normalize(text: str, form: Literal["NFC", "NFKC"]) -> str:
    """Normalizes Unicode, as in its Standard Annex 15."""
    return unicodedata.normalize(form, text)


def remove_control_characters(text: str) -> str:
    """Removes control characters (category Cc) but newline and tab."""
    return text.translate(_CONTROL_CHARACTERS)


def mask_emails(text: str) -> str:
    """Puts a mask in the place of every e-mail address."""
    return _EMAIL.sub(EMAIL_MASK, text) if "@" in text else text


def mask_phones(text: str) -> str:
    """Puts a mask in the place of every phone number."""
    return _PHONE.sub(PHONE_MASK, text)


def load_function(name: str) -> Callable[..., float]:
    """Imports a function; modules of the working directory count.

    Args:
        name: `module:function`.

    Raises:
        InputError: Where there is no such module or function.
    """
    try:
        function: Callable[..., float] = references.load(name)
    except ImportError as error:
        raise InputError(f"cleaning.filter {error}") from error
    return function


def function_hash(name: str | None) -> str:
    """Hashes the source of a function's module and what it imports of its package.

    Args:
        name: `module:function`, or `None`, whose hash is "".

    Raises:
        InputError: Where there is no such module.
    """
    if name is None:
        return ""
    references.look_in_working_directory()
    try:
        return source_hash(name)
    except ModuleNotFoundError as error:
        said = references.no_such_module(name)
        raise InputError(f"cleaning.filter {said}") from error


class Clean(beam.PTransform):
    """Documents to clean documents, of type `Document`.

    Duplicates are found first, in documents that are read and cleaned for this alone,
    so that no step gathers or shuffles the corpus.

    Args:
        cleaning: Which steps.
        folder: Where the counts are written; `read_counts` takes the same.
        again: Reads the documents again, given a name for that. Otherwise those of the
            input are used more than once, and Beam's local runner keeps them in memory.
    """

    def __init__(
        self,
        cleaning: CleaningSettings,
        folder: str,
        again: Callable[[str], beam.PCollection] | None = None,
    ) -> None:
        super().__init__()
        self._cleaning = cleaning
        self._folder = folder
        self._again = again

    def expand(self, documents: beam.PCollection) -> beam.PCollection:
        """Adds the steps that are on."""
        outputs = documents | "CleanEach" >> self._clean_each()
        self._documents = documents
        documents, counted = outputs["documents"], [outputs[_COUNTED]]
        for word, ids in self._duplicates().items():
            documents, dropped = documents | f"Drop[{word}]" >> _Drop(ids, word)
            counted.append(dropped)
        _ = (
            counted
            | "AllCounted" >> beam.Flatten()
            | "Count" >> beam.combiners.Count.PerElement()
            | "Counts" >> beam.combiners.ToDict()
            | "FormatCounts" >> beam.Map(json.dumps)
            | "WriteCounts" >> write_one(os.path.join(self._folder, _COUNTED))
        )
        _ = (
            outputs[_FAILED]
            | "First" >> beam.combiners.Top.Smallest(1)
            | "FormatFailure" >> beam.Map(json.dumps)
            | "WriteFailure" >> write_one(os.path.join(self._folder, _FAILED))
        )
        return documents

    def _duplicates(self) -> dict[str, beam.PCollection]:
        """Finds the ids of the documents to drop, by the word for why."""
        cleaning = self._cleaning
        found: dict[str, beam.PCollection] = {}
        if "duplicates" in cleaning.steps:
            documents = self._cleaned_again("Duplicates") | "Rank" >> beam.Map(_ranked)
            ids = documents | FindDuplicates(cleaning.duplicate_fields)
            found["duplicates"] = ids | "Unrank" >> beam.Map(_id_of)
        if "near_duplicates" in cleaning.steps:
            min_hash = min_hash_of(cleaning)
            distinct = []
            for name in ("Signatures", "SharedSignatures"):
                drop = _Drop(found["duplicates"], "duplicates")
                kept, _ = self._cleaned_again(name) | f"Distinct[{name}]" >> drop
                distinct.append(kept | f"Rank[{name}]" >> beam.Map(_ranked))
            ids = tuple(distinct) | FindNearDuplicates(
                min_hash, cleaning.duplicate_fields
            )
            found["near_duplicates"] = ids | "UnrankNear" >> beam.Map(_id_of)
        return found

    def _cleaned_again(self, name: str) -> beam.PCollection:
        documents = self._again(name) if self._again else self._documents
        return (documents | f"CleanEach[{name}]" >> self._clean_each())["documents"]

    def _clean_each(self) -> beam.PTransform:
        return beam.ParDo(_CleanEach(self._cleaning)).with_outputs(
            _COUNTED, _FAILED, main="documents"
        )


def min_hash_of(cleaning: CleaningSettings) -> MinHash:
    """What near duplicates are."""
    return MinHash(
        cleaning.near_duplicate_threshold, cleaning.shingles, cleaning.shingle_length
    )


def read_counts(cleaning: CleaningSettings, folder: str) -> dict[str, int]:
    """Reads how many documents each step that is on has changed or dropped.

    Args:
        cleaning: The steps.
        folder: Where `Clean` wrote.

    Raises:
        InputError: Where the user's filter failed on a document.
    """
    if not cleaning.steps:
        return {}
    for failure in read_json(os.path.join(folder, _FAILED)):
        raise InputError(f"cleaning.filter {cleaning.filter} failed on {failure}")
    counts = read_json(os.path.join(folder, _COUNTED))
    return {step: counts.get(step, 0) for step in cleaning.steps}


def describe(counts: dict[str, int]) -> str:
    """Says in one line what the steps did, `counts` being those of `read_counts`."""
    changed, dropped = (
        ", ".join(
            f"{count:,} {words[step]}"
            for step, count in counts.items()
            if count and step in words
        )
        for words in (_CHANGED, _DROPPED)
    )
    parts = [part for part in (changed, dropped and f"dropped {dropped}") if part]
    return f"cleaning: {'; '.join(parts) or 'all documents stay as they are'}"


class _CleanEach(beam.DoFn):
    """The steps that look at one document at a time.

    Outputs are documents, under `counted` the name of each step that changed or
    dropped one, and under `failed` what the user's filter could not judge.
    """

    def __init__(self, cleaning: CleaningSettings) -> None:
        self._cleaning = cleaning

    def setup(self) -> None:
        cleaning = self._cleaning
        rewrites: dict[str, Callable[[str], str]] = {
            "normalized": lambda text: normalize(text, cleaning.normalize or "NFC"),
            "control_characters": remove_control_characters,
            "emails": mask_emails,
            "phones": mask_phones,
        }
        self._rewrites = {
            step: rewrites[step] for step in cleaning.steps if step in rewrites
        }
        self._filter = load_function(cleaning.filter) if cleaning.filter else None

    def process(self, document: Document) -> Iterator[Any]:
        """Yields the document, or nothing, and what is counted."""
        target = [] if document.target is None else [document.target]
        texts = [document.text, *target]
        for step, rewrite in self._rewrites.items():
            rewritten = [rewrite(text) for text in texts]
            if rewritten != texts:
                yield beam.pvalue.TaggedOutput(_COUNTED, step)
                texts = [text if text.strip() else "" for text in rewritten]
        reason = self._why_dropped(*texts)
        try:
            if not reason and not self._passes_filter(texts):
                reason = "filtered"
        except Exception as error:  # The user's function may raise anything.
            message = f"{document.id}: {type(error).__name__}: {error}"
            yield beam.pvalue.TaggedOutput(_FAILED, message)
            return
        if reason:
            yield beam.pvalue.TaggedOutput(_COUNTED, reason)
        else:
            changed = texts[1] if target else None
            yield dataclasses.replace(document, text=texts[0], target=changed)

    def _why_dropped(self, text: str, target: str | None = None) -> str | None:
        if not text or target == "":
            return "empty"
        cleaning = self._cleaning
        sizes = {"bytes": len(text.encode()), "characters": len(text)}
        if target is not None:
            sizes["target_bytes"] = len(target.encode())
            sizes["target_characters"] = len(target)
        for unit, size in sizes.items():
            if size < (getattr(cleaning, f"min_{unit}") or 0):
                return "too_short"
            if size > (getattr(cleaning, f"max_{unit}") or size):
                return "too_long"
        return None if target is None else self._why_no_pair(text, target)

    def _why_no_pair(self, source: str, target: str) -> str | None:
        ratio = self._cleaning.max_length_ratio
        shorter, longer = sorted((len(source), len(target)))
        if ratio and longer > ratio * shorter:
            return "unlike_lengths"
        if self._cleaning.drop_copies and _is_copy(source, target):
            return "copies"
        return None

    def _passes_filter(self, texts: list[str]) -> bool:
        if self._filter is None:
            return True
        return float(self._filter(*texts)) >= self._cleaning.filter_threshold


def _is_copy(source: str, target: str) -> bool:
    return source.casefold().split() == target.casefold().split()


def _ranked(document: Document) -> Document:
    """Of copies that with the smallest id stays: those that evaluate have such."""
    return dataclasses.replace(
        document, id=f"{_STAYS.index(document.split)}{document.id}"
    )


def _id_of(ranked: str) -> str:
    return ranked[1:]


class FindDuplicates(beam.PTransform):
    """Gives the ids of documents that are equal to one with a smaller id.

    Only digests and ids are shuffled, and of these only what may come again: see
    `repeated_keys`.

    Args:
        fields: Names of the fields that must be equal; `None` for all.
    """

    def __init__(self, fields: Iterable[str] | None = None) -> None:
        super().__init__()
        self._fields = None if fields is None else frozenset(fields)

    def expand(self, documents: beam.PCollection) -> beam.PCollection:
        """Adds a combination and a shuffle."""
        named = documents | "Digest" >> beam.Map(
            lambda d: (digest(d, self._fields), d.id)
        )
        repeated = (
            named
            | beam.BatchElements(min_batch_size=_BATCH, max_batch_size=_BATCH)
            | "Keys" >> beam.Map(lambda batch: _keys(digest for digest, _ in batch))
            | "Repeated" >> beam.CombineGlobally(RepeatedKeys())
        )
        return (
            named
            | "MayComeAgain" >> beam.Filter(_may_come_again, AsSingleton(repeated))
            | "GroupEqual" >> beam.GroupByKey()
            | "AllButSmallest" >> beam.FlatMapTuple(lambda _, ids: sorted(ids)[1:])
        )


def _keys(digests: Iterable[bytes]) -> np.ndarray:
    return np.frombuffer(b"".join(digest[:8] for digest in digests), np.uint64)


def _may_come_again(named: tuple[bytes, str], repeated: Sieve) -> bool:
    return bool(repeated.holds(_keys(named[:1])).all())


class _Drop(beam.PTransform):
    """Drops documents by their ids.

    Gives the documents kept, and a word for each one dropped. A worker holds a number
    for each id.
    """

    def __init__(self, ids: beam.PCollection, word: str) -> None:
        super().__init__()
        self._ids = ids
        self._word = word

    def expand(
        self, documents: beam.PCollection
    ) -> tuple[beam.PCollection, beam.PCollection]:
        numbers = self._ids | "Number" >> beam.Map(hash_of) | beam.combiners.ToSet()
        outputs = documents | beam.FlatMap(
            _kept, AsSingleton(numbers), self._word
        ).with_outputs(_COUNTED, main="documents")
        return outputs["documents"], outputs[_COUNTED]


def _kept(document: Document, dropped: set[int], word: str) -> Iterator[Any]:
    if hash_of(document.id) in dropped:
        yield beam.pvalue.TaggedOutput(_COUNTED, word)
    else:
        yield document


def digest(document: Document, fields: frozenset[str] | None = None) -> bytes:
    """Returns a hash of a document's text, target and fields, of 16 bytes."""
    content = json.dumps([document.text, counting(document, fields)])
    return hashlib.sha256(content.encode()).digest()[:16]
