"""`make docs`: writes the pages of docs/ that are made from code.

    python scripts/docs.py [FOLDER]

The reference of the configuration is made from the classes of its settings: a key's
type, range and default are its field's, its meaning is the text under the field. The
other pages are tables of records.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from langzoo.benchmarks import records
from langzoo.components.evaluator import probes
from langzoo.components.evaluator.measures.metric import Metric
from langzoo.components.evaluator.measures.tables import (
    ADAPTED_MEASURES,
    EXPORT_MEASURES,
    TASK_MEASURES,
)
from langzoo.models import references
from langzoo.models.families import FAMILIES, RECIPES
from langzoo.models.families.presets import PRESETS
from langzoo.models.learning.recipe import COMMON
from langzoo.pipelines.configuration.config import Config
from langzoo.serving.export import contract

FOLDER = Path(__file__).parents[1] / "docs"
_MADE = "<!-- Made by `make docs` from the code: change that, not this page. -->"
_NUMBERS = {"integer": "whole number", "number": "number"}
_OTHERS = {"boolean": "`true` or `false`", "string": "text", "null": "nothing"}


class _Heading(NamedTuple):
    """A section of the settings, and the title under which it is told."""

    title: str
    schema: Mapping[str, Any]


class Reference:
    """Tables of keys, from the JSON schema of a class of settings.

    Args:
        schema: That of the class.
        more: What is told after some sections besides their keys, by title.
    """

    def __init__(
        self,
        schema: Mapping[str, Any],
        more: Mapping[str, Callable[[], Iterator[str]]] | None = None,
    ) -> None:
        self._schema = schema
        self._definitions: dict[str, Any] = schema.get("$defs", {})
        self._more = more or {}
        self._titles: dict[str, str] = {}
        self._ahead: list[_Heading] = []

    def sections(self, title: str = "") -> Iterator[str]:
        """Yields Markdown: the class's own keys, then section by section."""
        yield self._table(title, self._schema)
        while self._ahead:
            title, schema = self._ahead.pop(0)
            yield f"{'###' if '.' in title else '##'} {title}"
            yield _paragraphs(schema.get("description", ""))
            yield self._table(title, schema)
            if title in self._more:
                yield from self._more[title]()

    def _table(self, title: str, schema: Mapping[str, Any]) -> str:
        required = schema.get("required", ())
        found: list[_Heading] = []
        rows = []
        for name, field in schema["properties"].items():
            key = f"{title}.{name}" if title else name
            kind = self._kind(key, field, found)
            default = "required" if name in required else self._default(field)
            meaning = field.get("description") or self._first_sentence(field)
            rows.append((f"`{name}`", kind, default, " ".join(meaning.split())))
        # What is within a section comes before what is beside it.
        self._ahead[:0] = found
        return table(("key", "value", "default", "meaning"), rows)

    def _kind(self, key: str, field: dict[str, Any], found: list[_Heading]) -> str:
        """What a field takes, in words; sections in it are told later."""
        if "$ref" in field:
            return self._section(key, field["$ref"].rpartition("/")[2], found)
        if "properties" in field:
            found.append(_Heading(key, field))
            return f"[section](#{_anchor(key)})"
        if "anyOf" in field:
            kinds = [
                self._kind(key, one, found)
                for one in field["anyOf"]
                if one != {"type": "null"}
            ]
            return " or ".join(kinds)
        if "enum" in field or "const" in field:
            values = field.get("enum", [field.get("const")])
            return ", ".join(f"`{_as_yaml(value)}`" for value in values)
        kind = field.get("type")
        if kind == "array":
            items = self._kind(key, field["items"], found)
            return f"list, each {items}"
        if kind == "object":
            values = field.get("additionalProperties")
            if not isinstance(values, dict):
                return "mapping"
            return f"mapping to {self._kind(key, values, found)}"
        if kind in _NUMBERS:
            return f"{_NUMBERS[kind]}{_range(field)}"
        pattern = field.get("pattern", "")
        if pattern == references.PATTERN:
            return "`module:Name`"
        return _OTHERS.get(kind, "any") + (f", as `{pattern}`" if pattern else "")

    def _section(self, key: str, name: str, found: list[_Heading]) -> str:
        if name not in self._titles:
            self._titles[name] = key
            found.append(_Heading(key, self._definitions[name]))
        title = self._titles[name]
        return f"[section](#{_anchor(title)})"

    def _first_sentence(self, field: dict[str, Any]) -> str:
        """Of the section that a field is."""
        section = field.get("anyOf", [field])[0].get("$ref", "").rpartition("/")[2]
        text = self._definitions.get(section, {}).get("description", "")
        sentence = text.partition("\n\n")[0].partition(". ")[0].rstrip(".")
        return f"{sentence}." if sentence else ""

    @staticmethod
    def _default(field: dict[str, Any]) -> str:
        value = field.get("default")
        if value is None or isinstance(value, dict):
            return ""
        return f"`{_as_yaml(value)}`"


def _range(field: dict[str, Any]) -> str:
    least, above = field.get("minimum"), field.get("exclusiveMinimum")
    most, below = field.get("maximum"), field.get("exclusiveMaximum")
    if least is not None and most is not None:
        return f", {_as_yaml(least)} to {_as_yaml(most)}"
    bounds = {"at least": least, "above": above, "at most": most, "below": below}
    told = [
        f"{word} {_as_yaml(bound)}"
        for word, bound in bounds.items()
        if bound is not None
    ]
    return ", " + " and ".join(told) if told else ""


def _as_yaml(value: Any) -> str:
    if isinstance(value, float) and value.is_integer():
        return f"{value:.1f}" if abs(value) < 1000 else f"{value:,.0f}"
    text = yaml.safe_dump(value, default_flow_style=True, width=10_000, sort_keys=False)
    return text.removesuffix("...\n").strip().removesuffix("\n...")


def _paragraphs(text: str) -> str:
    """A docstring's text, without the papers that it refers to."""
    text = text.partition("\n\nReferences:")[0]
    return "\n\n".join(" ".join(part.split()) for part in text.split("\n\n"))


def _anchor(title: str) -> str:
    """Of a heading, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", title).lower().strip().replace(" ", "-")


def table(heads: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """A table of Markdown."""
    lines = [heads, ("---",) * len(heads), *rows]
    escaped = ([cell.replace("|", r"\|") for cell in cells] for cells in lines)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in escaped)


def configuration() -> str:
    """The page of the configuration."""
    head = [
        "# Configuration",
        _MADE,
        "One YAML file, checked before anything starts; `--set section.key=value` "
        "changes a key of it, where lists, mappings and what is quoted are YAML, and "
        "all else, such as a path, stands as it is written. Keys are told here with "
        "what they take and what holds where they are left out. A mistake is one line "
        "that names the key.",
    ]
    more = {"model": _families, "trainer": _recipes}
    sections = Reference(Config.model_json_schema(), more).sections()
    return "\n\n".join([*head, *filter(None, sections)]) + "\n"


def _families() -> Iterator[str]:
    """Of the section `model`: what each family has of its own, and the presets."""
    for name, family in FAMILIES.items():
        schema = family.settings.model_json_schema()
        del schema["properties"]["family"]
        yield f"### model.family: {name}"
        yield _paragraphs(schema["description"])
        yield from Reference(schema).sections(f"model.family: {name}")
        if family.search_space:
            yield f"A search without `search.space` tries {_told(family.search_space)}."
    yield "### model.preset"
    yield (
        "In the place of `model.family`; hyperparameters beside it change it. "
        "Parameters are for that vocabulary, FLOPs for a forward pass over a full "
        "context."
    )
    rows = []
    for name, preset in PRESETS.items():
        sizes = [f"{number:,}" for number in preset.size or ()] or ["-", "-"]
        lengths = [f"{preset.vocabulary_size:,}", f"{preset.context_length:,}"]
        rows.append((f"`{name}`", preset.family, sizes[0], *lengths, *sizes[1:]))
    heads = ("preset", "family", "parameters", "vocabulary", "context", "FLOPs a token")
    yield table(heads, rows)


def _recipes() -> Iterator[str]:
    """Of the section `trainer`: what holds where it does not say."""
    yield "### trainer, by family"
    yield "What holds where nothing is said: for all, and for a family instead."
    common = COMMON.model_dump()
    rows = [("all", _told(common))]
    for name, recipe in RECIPES.items():
        own = {k: v for k, v in recipe.model_dump().items() if v != common[k]}
        rows.append((f"`{name}`", _told(own) or "as all"))
    yield table(("family", "recipe"), rows)


def _told(values: Mapping[str, Any]) -> str:
    """Keys with their values, those that are none left out."""
    told = [f"`{k}: {_as_yaml(v)}`" for k, v in values.items() if v is not None]
    return ", ".join(told)


def metrics() -> str:
    """The page of the metrics that a rule of the gate can be about."""
    parts = [
        "# Metrics",
        _MADE,
        "What a rule of the [gate](gate.md#rules) can be about; "
        "[measures](measures.md) says how they are meant.",
    ]
    for task, measures in TASK_MEASURES.items():
        parts += [f"## Of the corpus, {task}", _metrics(measures)]
    parts += ["## Of models that adapt", _metrics(ADAPTED_MEASURES.values())]
    parts += ["## Of the exported model", _metrics(EXPORT_MEASURES.values())]
    parts += ["## Of the probes", _metrics(probes.NAMES.values())]
    return "\n\n".join(parts) + "\n"


def _metrics(found: Iterable[Metric]) -> str:
    rows = [
        (f"`{one.name}`", one.unit, one.better, one.definition, one.source)
        for one in found
    ]
    return table(("metric", "unit", "better", "what", "source"), rows)


def signatures() -> str:
    """The page of what an export answers."""
    return "\n\n".join(
        [
            "# Signatures",
            _MADE,
            "What an exported model answers, by task. `b` is the batch, `n` a length. "
            "[Serving](serving.md) and [clients](clients.md) say how to ask.",
            contract.reference() + "\n",
        ]
    )


def recorded() -> str:
    """The page of the records, whose tables are made; the rest stands as it is."""
    page = (FOLDER / "records.md").read_text(encoding="utf-8")
    before, made, rest = page.partition(
        "<!-- Made by `make docs` from benchmarks/records: change that, not this. -->\n"
    )
    _, end, after = rest.partition("<!-- end -->")
    return f"{before}{made}\n{records.tables()}\n\n{end}{after}"


PAGES = {
    "configuration.md": configuration,
    "metrics.md": metrics,
    "records.md": recorded,
    "signatures.md": signatures,
}


def main() -> None:
    """Writes all pages into a folder."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    for name, page in PAGES.items():
        (folder / name).write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
