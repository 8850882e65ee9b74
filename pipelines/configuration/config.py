"""The configuration of a pipeline: its sections, and what goes across them.

Importing this module imports neither TensorFlow nor TFX.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import pydantic
import yaml
from pydantic import Field

from ...components.evaluator.settings import GateSettings
from ...components.push_folder.settings import ServingSettings
from ...components.pusher.settings import CardSettings
from ...components.text_example_gen.settings import (
    TAG,
    TARGET,
    TARGET_FIELDS,
    CleaningSettings,
    CorpusSettings,
)
from ...components.tokenizer_trainer.settings import TokenizerSettings
from ...components.trainer.rows import ROWS
from ...components.trainer.settings import TrainerSettings
from ...components.trainer.watching.settings import WatchSettings
from ...components.tuner import search_space
from ...components.tuner.settings import LONGEST, SearchSettings
from ...models.families import FAMILIES, families_of
from ...models.families.family import Family
from ...models.families.ngram.family import NGRAM
from ...models.settings import PathText, Section, explain, hint, redacted
from ...models.tasks import CAUSAL_LM, TASKS
from ...serving.export.contract import GENERATE, SIGNATURES
from . import beam
from .kubeflow import KubeflowSettings
from .model import ModelSettings, family_named

_OR_FILES = ", or corpus.sources files of them, {source: train.en, target: train.de}"


def _root(folder: str) -> str:
    scheme, separator, _ = folder.partition("://")
    if separator and scheme not in ("gs", "file", "ram"):
        raise ValueError(
            f"root: TensorFlow writes to no {scheme}://: take a folder or gs://; "
            "corpus.path and serving.push_folder can be s3://"
        )
    if wild := sorted({*"*?["} & {*_absolute(folder)}):
        raise ValueError(
            f"root: {_absolute(folder)} has a {wild[0]} in it, which TFX and Beam take "
            "for a pattern: take another folder"
        )
    # What stands behind a slash too many is another file in a store.
    return folder.rstrip("/") if separator else folder


def _task(name: str) -> str:
    if name not in TASKS:
        raise ValueError(f"task: {name!r} is not known: {hint(name, TASKS)}")
    return name


class Config(Section):
    """Everything that a run depends on."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$", max_length=60)]
    """Name of the pipeline; runs of one name share artifacts and blessed models."""
    root: Annotated[PathText, pydantic.AfterValidator(_root)] = "langzoo-runs"
    """Folder for artifacts, metadata and logs of all pipelines; not `s3://`, which
    TensorFlow does not write."""
    corpus: CorpusSettings = CorpusSettings()
    cleaning: CleaningSettings = CleaningSettings()
    tokenizer: TokenizerSettings = TokenizerSettings()
    task: Annotated[str, pydantic.AfterValidator(_task)] = CAUSAL_LM.name
    """What the model learns to do, and so what it is judged by and how it answers:
    `causal_lm`, to go on with a text; `masked_lm`, to say what is hidden in one;
    `text_classifier`, to say its label; `token_classifier`, to say the tag of each of
    its words; `seq_to_seq_lm`, to make another text of it, such as its translation."""
    model: ModelSettings
    trainer: TrainerSettings = TrainerSettings()
    watch: WatchSettings = WatchSettings()
    search: SearchSettings | None = None
    """`{}` is a search with all defaults; without, `model` and `trainer` decide."""
    gate: GateSettings = GateSettings()
    serving: ServingSettings = ServingSettings()
    card: CardSettings = CardSettings()
    kubeflow: KubeflowSettings = KubeflowSettings()
    beam_pipeline_args: Annotated[list[str], pydantic.AfterValidator(beam.checked)] = (
        beam.LOCALLY
    )
    """Options of Beam's, as `--name=value`. Without a `--runner` this machine does the
    work: in one process, or with `--direct_running_mode=multi_processing` and
    `--direct_num_workers=N` in several, which pays from some 100 MB on. Workers of a
    cluster (Flink's, Spark's, Dataflow's) need this package: name an image with it by
    `--sdk_container_image`."""

    @property
    def _families(self) -> list[Family]:
        """That of the model, or those of its members."""
        return families_of(self.model.model_dump())

    @property
    def _has_targets(self) -> bool:
        return TARGET in TASKS[self.task].learns_from

    @property
    def folder(self) -> Path:
        """Folder of this pipeline."""
        return Path(self.root, self.name).absolute()

    @property
    def weights_preset(self) -> str:
        """Folder of the preset whose weights training goes on with, or ""."""
        return getattr(self.model, "initial_weights", None) or ""

    @property
    def tokenizer_preset(self) -> str:
        """The preset that `tokenizer.type: preset` takes the tokenizer of, or ""."""
        return self.weights_preset or getattr(self.model, "preset", "")

    @property
    def checkpoint_root(self) -> str:
        """Folder for the checkpoints of trainings."""
        return _absolute(f"{self.root}/{self.name}/checkpoints")

    @property
    def push_folder(self) -> str:
        """Folder that the model server watches."""
        return _absolute(self.serving.push_folder or f"{self.root}/{self.name}/serving")

    @property
    def search_settings(self) -> dict[str, Any]:
        """What the Tuner is told of the search, of which there must be one."""
        assert self.search is not None
        space = search_space.settled(self.search.space, self._refusal)
        return {**self.search.model_dump(), "space": space}

    @pydantic.model_validator(mode="before")
    @classmethod
    def _a_search_has_a_space(cls, content: Any) -> Any:
        if not isinstance(content, dict):
            return content
        search, model = content.get("search"), content.get("model")
        if not isinstance(search, dict) or search.get("space") is not None:
            return content
        if not isinstance(model, dict) or "family" not in model:
            return content
        if model.get("initial_weights"):
            raise ValueError(
                "search.space is needed with model.initial_weights, whose sizes the "
                "model keeps"
            )
        trainer = content.get("trainer")
        optimizer = trainer.get("optimizer") if isinstance(trainer, dict) else None
        if optimizer not in (None, "adam", "adamw"):
            raise ValueError(
                f"search.space is needed with trainer.optimizer {optimizer}: learning "
                "rates of the family's are adamw's"
            )
        space = family_named(model["family"]).search_space
        if not space:
            raise ValueError(
                f"search.space is needed with model.family {model['family']}, which "
                "has none of its own"
            )
        return {**content, "search": {**search, "space": dict(space)}}

    @pydantic.model_validator(mode="after")
    def _the_model_can_learn_the_task(self) -> Config:
        family, task = family_named(self.model.family), TASKS[self.task]
        if not family.can(task):
            able = [name for name, other in TASKS.items() if family.can(other)]
            raise ValueError(
                f"task {self.task} is not for models of family {family.name}, which "
                f"can learn {', '.join(able)}"
            )
        if self.gate.needs_ngram and not NGRAM.can(task):
            raise ValueError(
                f"gate.rules: n-grams cannot learn task {self.task}: a rule is against "
                "last_blessed, or has min or max"
            )
        if self.serving.max_new_tokens and GENERATE not in SIGNATURES[self.task]:
            raise ValueError(
                f"serving.max_new_tokens: models of task {self.task} do not write texts"
            )
        for name, rows in ROWS.items():
            own = rows.settings and TrainerSettings.model_fields[rows.settings].default
            is_told = rows.settings and getattr(self.trainer, rows.settings) != own
            if is_told and self.task != name:
                raise ValueError(
                    f"trainer.{rows.settings} is of task {name}, and the task is "
                    f"{self.task}"
                )
        return self

    @pydantic.model_validator(mode="after")
    def _there_is_what_the_task_learns_from(self) -> Config:
        for feature in TASKS[self.task].learns_from:
            if feature not in self.corpus.targets:
                raise ValueError(
                    f"task {self.task} learns from {feature}s: corpus."
                    f"{TARGET_FIELDS[feature]} must name the field that has them"
                    f"{_OR_FILES if feature == TARGET else ''}"
                )
        if TARGET in self.corpus.targets and not self._has_targets:
            raise ValueError(
                f"corpus.target_field, or a target of corpus.sources, is what a task "
                f"learns to make of a text, and task {self.task} does not: leave it "
                "out, or name the field in corpus.fields"
            )
        family = family_named(self.model.family)
        first = self.trainer.classifier.pooling == "first"
        if first and family.backbone and not family.fills_gaps:
            raise ValueError(
                "trainer.classifier.pooling first needs a family whose first state has "
                f"seen the whole text, which {self.model.family}'s has not: mean, last "
                "or attention"
            )
        if not ROWS[self.task].packs:
            for name in ("carry_state", "packing", "repack"):
                default = TrainerSettings.model_fields[name].default
                if getattr(self.trainer, name) != default:
                    raise ValueError(
                        f"trainer.{name} is of tasks whose rows documents share, and "
                        f"in those of {self.task} each is by itself"
                    )
        return self

    @pydantic.model_validator(mode="after")
    def _lengths_fit(self) -> Config:
        self.serving.lengths(self.model.context_length)
        return self

    @pydantic.model_validator(mode="after")
    def _tokenizer_fits_the_model(self) -> Config:
        from_preset = self.tokenizer.type == "preset"
        weights = self.weights_preset
        if from_preset and not self.tokenizer_preset:
            raise ValueError(
                "tokenizer.type preset takes the tokenizer of model.preset or "
                "model.initial_weights: it needs model.family keras_hub, or weights"
            )
        pretrained = getattr(self.model, "pretrained", False)
        if (weights or pretrained) and not from_preset:
            raise ValueError(
                f"model.{'initial_weights' if weights else 'pretrained'} needs the "
                "tokenizer that the weights were trained with: set tokenizer.type to "
                f"preset (it is {self.tokenizer.type})"
            )
        return self

    @pydantic.model_validator(mode="after")
    def _there_is_a_state_to_carry(self) -> Config:
        asks = {
            "trainer.carry_state": self.trainer.carry_state,
            "serving.score_stride 0": self.serving.score_stride == 0,
        }
        for key, is_asked in asks.items():
            if is_asked and not all(it.carries_state for it in self._families):
                recurrent = [it.name for it in FAMILIES.values() if it.carries_state]
                raise ValueError(
                    f"{key} needs a family that has a state, one of "
                    f"{', '.join(recurrent)}: model.family is {self.model.family}"
                )
        return self

    @pydantic.model_validator(mode="after")
    def _there_are_layers_that_learn(self) -> Config:
        learns = any(family.learns_by_gradient for family in self._families)
        for key in ("freeze", "layer_rates", "unfreeze"):
            if getattr(self.trainer, key) and not learns:
                raise ValueError(
                    f"trainer.{key} needs a family that learns by gradient: "
                    f"model.family is {self.model.family}"
                )
        return self

    @pydantic.model_validator(mode="after")
    def _there_are_weights_to_adapt(self) -> Config:
        family = family_named(self.model.family)
        if self.gate.adapting.dynamic and not family.learns_by_gradient:
            raise ValueError(
                "gate.adapt.dynamic, or a rule about it, needs a family that learns by "
                f"gradient: model.family is {self.model.family}"
            )
        return self

    @pydantic.model_validator(mode="after")
    def _the_packing_fits(self) -> Config:
        apart = all(
            family.keeps_documents_apart or not family.learns_by_gradient
            for family in self._families
        )
        if self.trainer.packing == "best_fit" and not apart:
            raise ValueError(
                "trainer.packing best_fit needs a family that keeps the documents of a "
                f"row apart, which {self.model.family} does not: take contiguous or "
                "lines"
            )
        return self

    @pydantic.model_validator(mode="after")
    def _words_keep_their_tags(self) -> Config:
        cleaning = self.cleaning
        parts_words = {
            "normalize NFKC": cleaning.normalize == "NFKC",
            "remove_control_characters": cleaning.remove_control_characters,
            "mask_phones": cleaning.mask_phones,
        }
        for step, is_on in parts_words.items():
            if is_on and TAG in self.corpus.targets:
                raise ValueError(
                    f"cleaning.{step} may part words or join them, and each has a tag "
                    "of corpus.tags_field: leave it out"
                )
        return self

    @pydantic.model_validator(mode="after")
    def _pairs_are_cleaned_where_there_are_such(self) -> Config:
        for name in self.cleaning.of_pairs:
            if not self._has_targets:
                raise ValueError(
                    f"cleaning.{name} is of documents with a target, and task "
                    f"{self.task} has none: leave it out"
                )
        return self

    @pydantic.model_validator(mode="after")
    def _duplicates_have_the_fields(self) -> Config:
        known = self.corpus.features
        for name in self.cleaning.duplicate_fields or ():
            if name not in known:
                raise ValueError(
                    f"cleaning.duplicate_fields: there is no field {name!r}: corpus."
                    f"fields has {', '.join(known) or 'none'}"
                )
        return self

    @pydantic.model_validator(mode="after")
    def _rules_can_be_kept(self) -> Config:
        self.gate.require_measurable(self.corpus.sliced_by, self.task)
        return self

    @pydantic.model_validator(mode="after")
    def _there_is_something_to_watch(self) -> Config:
        if self.watch.sample_tokens and self.trainer.eval_every_steps is None:
            raise ValueError("watch.sample_tokens needs trainer.eval_every_steps")
        if self.watch.sample_tokens and GENERATE not in SIGNATURES[self.task]:
            raise ValueError(
                f"watch.sample_tokens: models of task {self.task} do not "
                "write texts: set it to 0"
            )
        _, last = self.watch.profile_steps or (0, 0)
        if last > self.trainer.steps:
            raise ValueError(
                f"watch.profile_steps ends at {last}, after the last of the "
                f"{self.trainer.steps} trainer.steps"
            )
        return self

    @pydantic.model_validator(mode="after")
    def _every_value_of_the_search_can_be(self) -> Config:
        if self.search is None:
            return self
        search_space.check_values(self.search.space, self._refusal)
        if self.search.algorithm != "hyperband":
            return self
        if not any(family.learns_by_gradient for family in self._families):
            raise ValueError(
                "search.algorithm hyperband tells trainings by their first steps, and "
                "an n-gram model only counts: take random or bayesian"
            )
        known = search_space.combinations(self.search.space)
        if known < LONGEST:
            raise ValueError(
                f"search.space has {known:.0f} combination(s), and search.algorithm "
                f"hyperband begins with {LONGEST}: take random"
            )
        return self

    def _refusal(self, values: Mapping[str, Any]) -> str | None:
        """Why values cannot take the place of this configuration's."""
        content = self.model_dump(exclude={"search"})
        for key, value in values.items():
            *path, name = key.split(".")
            section: Any = content
            for part in path:
                section = section.get(part)
                if not isinstance(section, dict):
                    return f"unknown key {key}"
            section[name] = value
        try:
            Config.model_validate(content)
        except pydantic.ValidationError as error:
            return explain(error)
        return None

    def to_yaml(self) -> str:
        """Returns the resolved configuration: every default, and no secrets."""
        return redacted(yaml.safe_dump(self.model_dump(), sort_keys=False))


def _absolute(folder: str) -> str:
    return folder if "://" in folder else os.path.abspath(folder)
