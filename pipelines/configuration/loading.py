"""Reading a configuration: one YAML file and `--set`, checked before anything starts.

Importing this module imports neither TensorFlow nor TFX.
"""

from __future__ import annotations

import hashlib
import operator
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import pydantic
import yaml

from ...components.text_example_gen.demo_corpus import NAME as DEMO
from ...models.families.presets import resolved
from ...models.settings import explain, key_of, redacted
from ...serving.wording import in_one_line
from .config import Config
from .kubeflow import is_secret

Setting: TypeAlias = str | tuple[str, Any]
"""What changes a configuration: `section.key=value`, or key and value."""

DEMO_CONFIG = Path(__file__).parents[1] / "configs" / "demo.yaml"


class ConfigError(ValueError):
    """A configuration that cannot be used; the message is one line for the user."""

    def __init__(self, message: str) -> None:
        super().__init__(in_one_line(message))


class _Loader(yaml.SafeLoader):
    """YAML 1.1, but 3e-4 is a number, as it is in YAML 1.2 and as people write it."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+[eE][-+]?[0-9]+"), "-+0123456789"
)


def _parse(text: str) -> Any:
    return yaml.load(text, _Loader)


def load(path: Path | None = None, settings: Sequence[Setting] = ()) -> Config:
    """Reads and checks a configuration.

    Args:
        path: A YAML file; by default the demo's.
        settings: The later go over the earlier. The value of `section.key=value` is
            YAML where it is a list, a mapping or quoted; all else, such as a path,
            stands as it is written.

    Raises:
        ConfigError: Naming the file or the setting, the key, the value, and what would
            be right.
    """
    path = path or DEMO_CONFIG
    try:
        content = _parse(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the configuration {path}: {error}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not YAML: {_in_one_line(error)}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path} must hold keys and values, such as 'name: demo'")
    changes = [_Change.of(setting) for setting in settings]
    for change in changes:
        change.apply(content)
    try:
        if isinstance(content.get("model"), dict):
            content["model"] = resolved(content["model"])
        return Config.model_validate(content)
    except pydantic.ValidationError as error:
        said, reason = key_of(error), explain(error)
    except ValueError as error:
        said, reason = ("model",), f"model: {error}"
    place = next((str(c) for c in reversed(changes) if c.says(said, reason)), path)
    raise ConfigError(f"{place}: {reason}")


def name_of(corpus: str) -> str:
    """A pipeline's name for a corpus, so that it shares nothing with that of another.

    Args:
        corpus: Its path, such as `texts/*.txt`, which gives `texts-txt`.
    """
    name = re.sub(r"[^a-z0-9]+", "-", corpus.lower()).strip("-")
    told = re.fullmatch(r"(?!.*\.\.)[a-z0-9/.*-]{1,40}", corpus)
    if told and name not in ("", DEMO):
        return name
    digest = hashlib.sha256(corpus.encode(errors="surrogateescape")).hexdigest()
    return f"{name[-40:]}-{digest[:8]}".strip("-")


class _Change(NamedTuple):
    """What a setting changes, and how it was given."""

    key: list[str]
    value: Any
    given: str

    @classmethod
    def of(cls, setting: Setting) -> _Change:
        if not isinstance(setting, str):
            name, value = setting
            return cls(name.split("."), value, f"{name}={value}")
        name, equals, text = setting.partition("=")
        key = name.strip().split(".")
        if not equals or not all(key):
            raise ConfigError(f"--set {setting}: write it as section.key=value")
        try:
            return cls(key, _value(text.strip()), setting)
        except yaml.YAMLError as error:
            raise ConfigError(
                f"--set {setting}: the value is not YAML: {_in_one_line(error)}"
            ) from error

    def __str__(self) -> str:
        words = re.findall(r"\w+", self.given)
        if self.key[0] in ("kubeflow", "beam_pipeline_args") and any(
            map(is_secret, words)
        ):
            return f"--set {'.'.join(self.key)}"
        return redacted(f"--set {self.given}")

    def apply(self, content: dict[str, Any]) -> None:
        for section in self.key[:-1]:
            content = content.setdefault(section, {})
            if not isinstance(content, dict):
                raise ConfigError(f"{self}: {section} is no section")
        content[self.key[-1]] = self.value

    def says(self, key: tuple[str, ...], reason: str) -> bool:
        """Whether it says what is wrong: a key, or where none is, what is told of."""
        if key:
            return all(map(operator.eq, self.key, key))
        return ".".join(self.key) in reason or reason.startswith(self.key[0])


def _value(text: str) -> Any:
    """The value of a setting, where a path needs no quotes, whatever is in it."""
    if "\n" in text:
        return _parse(text)
    if not text.startswith(("[", "{", '"', "'")):
        loader = _Loader("")
        tag = loader.resolve(yaml.ScalarNode, text, (True, False))
        return loader.construct_object(yaml.ScalarNode(tag, text))
    loader = _Loader(text)
    node = loader.get_single_node()
    if node and (rest := text[node.end_mark.index :].strip()):
        raise yaml.YAMLError(f"{rest} would be a comment")
    return loader.construct_document(node)


def _in_one_line(error: yaml.YAMLError) -> str:
    return " ".join(str(error).split())
