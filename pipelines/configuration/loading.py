"""Reading a configuration: one YAML file and `--set`, checked before anything starts.

Importing this module imports neither TensorFlow nor TFX.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pydantic
import yaml

from ...components.text_example_gen.demo_corpus import NAME as DEMO
from ...models.families.presets import resolved
from ...models.settings import explain
from .config import Config

DEMO_CONFIG = Path(__file__).parents[1] / "configs" / "demo.yaml"


class ConfigError(ValueError):
    """A configuration that cannot be used; the message is one line for the user."""


class _Loader(yaml.SafeLoader):
    """YAML 1.1, but 3e-4 is a number, as it is in YAML 1.2 and as people write it."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+[eE][-+]?[0-9]+"), "-+0123456789"
)


def _parse(text: str) -> Any:
    return yaml.load(text, _Loader)


def load(path: Path | None = None, settings: Sequence[str] = ()) -> Config:
    """Reads and checks a configuration.

    Args:
        path: A YAML file; by default the demo's.
        settings: Changes of the form `section.key=value`; values are YAML.

    Raises:
        ConfigError: Naming the file and the key, the value, and what would be right.
    """
    path = path or DEMO_CONFIG
    try:
        content = _parse(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the configuration {path}: {error}") from error
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"{path} is not YAML: {reason}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path} must hold keys and values, such as 'name: demo'")
    for setting in settings:
        _apply(content, setting)
    if isinstance(content.get("model"), dict):
        try:
            content["model"] = resolved(content["model"])
        except ValueError as error:
            raise ConfigError(f"{path}: model: {error}") from error
    try:
        return Config.model_validate(content)
    except pydantic.ValidationError as error:
        raise ConfigError(f"{path}: {explain(error)}") from error


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


def _apply(content: dict[str, Any], setting: str) -> None:
    key, equals, value = setting.partition("=")
    *sections, name = key.strip().split(".")
    if not equals or not all([*sections, name]):
        raise ConfigError(f"--set {setting}: write it as section.key=value")
    for section in sections:
        content = content.setdefault(section, {})
        if not isinstance(content, dict):
            raise ConfigError(f"--set {setting}: {section} is no section")
    try:
        content[name] = _parse(value)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {setting}: the value is not YAML") from error
