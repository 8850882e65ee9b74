"""What Trainer trains, as every process that takes part needs it."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
import tempfile
from collections.abc import Collection, Iterator
from typing import Any

import keras
import numpy as np
import pydantic
import tensorflow as tf
from tfx.components.trainer.fn_args_utils import FnArgs

from ...models import zoo
from ...models.families import families_of, family_of, parts_of
from ...models.references import load
from ...models.settings import explain
from ...models.tasks import CAUSAL_LM
from ...models.tasks.scoring import SYMBOL_NLL
from ...models.tokenizers.base import TextTokenizer
from ..errors import InputError
from ..progress import show
from ..transform.executor import tokenizer_of
from ..transform.records import Tokens
from .counting import count
from .distribution import is_chief, wanted
from .evaluation import Texts
from .hyperparameters import with_hyperparameters
from .mixing import mix
from .networks import network_of, prepared
from .records import LOGS_FOLDER, MEMBER, TrainingResult
from .rows import ROWS
from .rows.holding_out import LEARNED, hold_out
from .rows.windows import TokenStream, read_documents, read_lengths
from .settings import WITHOUT_EFFECT, TrainerSettings
from .training import train
from .watching.settings import WatchSettings
from .watching.watching import Watching

# What of a configuration decides what a training comes to.
_DECIDING = ("model", "task", "source", "preset_hash")


@dataclasses.dataclass(frozen=True)
class Job:
    """A model, its training, and the data.

    Attributes:
        model: `family` and what else `zoo.build_causal_lm` takes.
        training: Fields of `TrainerSettings`.
        train_files: Patterns of the transformed examples to learn from.
        eval_files: Patterns of those to evaluate on.
        transform_graph: Folder of the graph that made them.
        checkpoints: Folder for checkpoints, of this job alone.
        watch: How it is watched, as `WatchSettings.of` takes it.
        task: Its name.
        learned: Name of the stream that is learned from, among those that are packed.
    """

    model: dict[str, Any]
    training: dict[str, Any]
    train_files: list[str]
    eval_files: list[str]
    transform_graph: str
    checkpoints: str
    watch: dict[str, Any] | str = dataclasses.field(default_factory=dict)
    task: str = CAUSAL_LM.name
    learned: str = "train"

    @classmethod
    def of(cls, fn_args: FnArgs) -> Job:
        """Returns the job that Trainer was given, with what a search has found."""
        found = (fn_args.hyperparameters or {}).get("values", {})
        config = with_hyperparameters(fn_args.custom_config, found)
        watch = config.pop("watch", {})
        job = cls(
            model=config["model"],
            training=config["training"],
            train_files=fn_args.train_files,
            eval_files=fn_args.eval_files,
            transform_graph=fn_args.transform_graph_path,
            checkpoints="",
            watch=watch,
            task=config.get("task", CAUSAL_LM.name),
        )
        idle = job.settings.without_effect()
        folder = checkpoint_folder(fn_args, config, idle)
        return dataclasses.replace(job, checkpoints=folder)

    @functools.cached_property
    def settings(self) -> TrainerSettings:
        """How the model is trained, the recipe of its family included.

        Raises:
            InputError: Where it cannot be trained so.
        """
        try:
            settings = TrainerSettings(**self.training)
        except pydantic.ValidationError as error:
            raise InputError(f"training: {explain(error)}") from error
        pretrained = self.model.get("pretrained", False)
        return settings.of_family(
            self.model["family"],
            pretrained=pretrained or "initial_weights" in self.model,
        )

    @property
    def learns_by_gradient(self) -> bool:
        """Whether some of the model is trained in steps; else all only counts."""
        return any(family.learns_by_gradient for family in families_of(self.model))

    @functools.cached_property
    def members(self) -> list[Job]:
        """The trainings of a mixture's members; of another model there are none."""
        parts = parts_of(self.model)
        if len(parts) == 1:
            return []
        return [
            dataclasses.replace(
                self,
                model=part,
                checkpoints=os.path.join(self.checkpoints, f"{MEMBER}{number}"),
                learned=LEARNED,
            )
            for number, part in enumerate(parts)
        ]

    @property
    def strategy(self) -> str:
        """What shares the work, by its name; a model that only counts has one."""
        if not self.learns_by_gradient:
            return "one_device"
        strategy = wanted(self.training.get("strategy", "auto"))
        if strategy == "multi_worker" and self.members:
            raise InputError(
                "trainer.strategy multi_worker is for single models: the members of a "
                "mixture share one machine, by mirrored or one_device"
            )
        return strategy

    @functools.cached_property
    def tokenizer(self) -> TextTokenizer:
        """What made the token ids."""
        return tokenizer_of(self.transform_graph)

    def build(self) -> Any:
        """Returns the model before training, the same one every time.

        Raises:
            InputError: Where the family cannot be built so.
        """
        keras.utils.set_random_seed(self.settings.seed)
        rows, family = ROWS[self.task], family_of(self.model["family"])
        of_task = {}
        if rows.of_model:
            own = self._own_settings
            of_task = load(rows.of_model)(self.transform_graph, family, own)
        model = {**self.model, "task": self.task, "of_task": of_task}
        try:
            return zoo.build(tokenizer=self.tokenizer, **model)
        except ValueError as error:
            raise InputError(f"model: {error}") from error

    def with_weights(self, weights: list[np.ndarray]) -> Any:
        """Returns the model with the weights of another."""
        model = self.build()
        model.set_weights(weights)
        return model

    def train(self, strategy: tf.distribute.Strategy) -> tuple[Any, TrainingResult]:
        """Builds the model and trains it, by a strategy."""
        show("packing windows")
        with tempfile.TemporaryDirectory() as folder:
            self.pack(folder)
            return self.train_on(folder, strategy)

    def pack(self, folder: str) -> None:
        """Writes the token ids of both splits into a folder, for `train_on`.

        Raises:
            InputError: Where some shall be held out, and there is too little.
        """
        write = load(ROWS[self.task].write)
        for split, patterns in self._files.items():
            path = os.path.join(folder, split)
            write(path, patterns, self.transform_graph, self.tokenizer)
        if self.members:
            record = family_of(self.model["family"])
            settings: Any = record.settings_of(**self.model)
            path = os.path.join(folder, self.learned)
            hold_out(path, settings.held_out, settings.context_length)

    def train_on(
        self,
        packed: str,
        strategy: tf.distribute.Strategy,
        schedule_steps: int | None = None,
    ) -> tuple[Any, TrainingResult]:
        """Builds the model and trains it on what `pack` has written.

        Args:
            packed: The folder.
            strategy: The devices that share a batch.
            schedule_steps: As of `training.train`.
        """
        if self.members:
            return self._mix(packed, strategy, schedule_steps)
        with strategy.scope():
            model = self.build()
        if not self.learns_by_gradient:
            return model, self._count(model, packed)
        with strategy.scope():
            trained = prepared(model, self.settings)
            network = network_of(trained, self.settings)
        watching = Watching()
        if is_chief(strategy):
            watching = self.logs()
            watching.sample_from(model, trained)
        train_windows, eval_windows = self._windows(packed, model)
        result = train(
            network,
            train_windows,
            eval_windows,
            self.settings,
            self.checkpoints,
            texts=self.eval_texts(packed, eval_windows.decisions),
            watching=watching,
            schedule_steps=schedule_steps,
        )
        if trained is not model:
            model.set_weights(trained.get_weights())
        return model, result

    def _mix(
        self,
        packed: str,
        strategy: tf.distribute.Strategy,
        schedule_steps: int | None,
    ) -> tuple[Any, TrainingResult]:
        """Trains the members of a mixture one after the other, then their weights."""

        def train_member(number: int, part: Any) -> TrainingResult:
            job = self.members[number]
            if not job.learns_by_gradient:
                return job._count(part, packed)
            trained, result = job.train_on(packed, strategy, schedule_steps)
            part.set_weights(trained.get_weights())
            return result

        model = self.build()
        return model, mix(model, train_member, packed, self.settings)

    def _count(self, model: Any, packed: str) -> TrainingResult:
        """Lets a model count documents, which it reads whole."""
        documents = read_documents(os.path.join(packed, self.learned))
        train_windows, eval_windows = self._windows(packed, model, "contiguous")
        return count(model, documents, train_windows, eval_windows, self.settings)

    def _windows(
        self, packed: str, model: Any, packing: str = ""
    ) -> Iterator[TokenStream]:
        """The windows of both splits, by default in the packing of the settings."""
        rows, packing = ROWS[self.task], packing or self.settings.packing
        own = self._own_settings
        more = [model.source_context_length] if rows.has_sources else []
        for stream in (self.learned, "eval"):
            path = os.path.join(packed, stream)
            yield load(rows.read)(
                path, model.context_length, packing, self.tokenizer, own, *more
            )

    @property
    def _own_settings(self) -> Any:
        """Those that are of the task alone, if it has some."""
        name = ROWS[self.task].settings
        return getattr(self.settings, name) if name else None

    def eval_texts(self, packed: str, decisions: int = 1) -> Texts:
        """What the evaluation split says, by what `pack` and Transform have written."""
        folder = os.path.dirname(os.path.dirname(self.eval_files[0]))
        counts = Tokens.read(folder).splits["eval"].predicted
        lengths = read_lengths(os.path.join(packed, "eval"))
        return Texts(
            targets=int(lengths.sum() + len(lengths)),
            bytes=counts.bytes,
            spelling_nll=counts.symbols * SYMBOL_NLL,
            task=self.task,
            decisions=decisions,
        )

    @property
    def _files(self) -> dict[str, list[str]]:
        return {"train": self.train_files, "eval": self.eval_files}

    def keep_logs(self, folder: str) -> None:
        """Copies the logs of a training that has ended, or those of its members."""
        self.logs().keep(folder)
        for job in self.members:
            job.keep_logs(os.path.join(folder, os.path.basename(job.checkpoints)))

    def logs(self) -> Watching:
        """Returns what shows the training.

        Its logs lie beside the checkpoints, for what a killed run has shown to be gone
        on with.
        """
        return Watching(
            WatchSettings.of(self.watch),
            os.path.join(self.checkpoints, LOGS_FOLDER),
            run={"model": self.model, "training": self.training},
        )


def checkpoint_folder(
    fn_args: FnArgs,
    config: dict[str, Any],
    idle: Collection[str] = WITHOUT_EFFECT,
    **more: Any,
) -> str:
    """Names checkpoints after all that decides the training, data included.

    Args:
        fn_args: What Trainer or Tuner got.
        config: Its `custom_config`.
        idle: Names of settings of the training that decide nothing.
        **more: What else decides.
    """
    training = config["training"]
    inputs = [
        fn_args.train_files,
        fn_args.transform_graph_path,
        {name: config[name] for name in _DECIDING if name in config},
        {name: training[name] for name in training if name not in idle},
        more,
    ]
    key = hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:16]
    return os.path.join(config["checkpoint_root"], key)
