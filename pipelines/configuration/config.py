"""The configuration of a pipeline: its sections, and what goes across them.

Importing this module imports neither TensorFlow nor TFX.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
import yaml
from pydantic import Field

from ...components.evaluator.settings import GateSettings
from ...components.push_folder.settings import ServingSettings
from ...components.pusher.settings import CardSettings
from ...components.text_example_gen.settings import CleaningSettings, CorpusSettings
from ...components.tokenizer_trainer.settings import TokenizerSettings
from ...components.tuner import search_space
from ...models.families import FAMILIES
from ...models.settings import Section, explain
from . import beam
from .kubeflow import KubeflowSettings
from .model import ModelSettings, family_named


class AugmentationConfig(Section):
    """Noise for small corpora: in training, and only there, `<unk>` takes the place of
    some of the tokens that the model reads; what it predicts stays."""

    token_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the tokens that are hidden one by one."""
    span_masking: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the tokens that are hidden in spans."""
    span_length: Annotated[int, Field(ge=1)] = 3
    """Tokens in a span; spans may overlap."""


# As in models/learning/optimizers.py and models/learning/schedules.py.
_Optimizer = Literal["adamw", "adam", "sgd", "nt_asgd", "adagrad", "adafactor", "lion"]
_Schedule = Literal[
    "constant", "cosine", "linear", "inverse_square_root", "step", "plateau"
]
# What a setting of the trainer is for: the key and the values of which one is needed.
_SETTINGS_OF = {
    "beta_2": ("optimizer", ("adamw", "adam", "lion")),
    "momentum": ("optimizer", ("sgd",)),
    "averaging_patience": ("optimizer", ("nt_asgd",)),
    "decay_every_steps": ("schedule", ("step",)),
    "decay_factor": ("schedule", ("step", "plateau")),
    "plateau_patience": ("schedule", ("plateau",)),
}
_RECIPE = {"optimizer": "adamw", "schedule": "cosine"}


class TrainerConfig(Section):
    """How the model is trained: by default AdamW, linear warm-up, cosine decay.

    What is not given, from `learning_rate` to `gradient_accumulation_steps`, is as in
    the family's recipe: see models/learning/recipe.py.
    """

    steps: Annotated[int, Field(ge=0)] = 1000
    """Updates of the weights."""
    batch_size: Annotated[int, Field(ge=1)] = 8
    """Windows a batch. On small corpora many small steps learn most."""
    carry_state: bool = False
    """Whether a recurrent family goes on from batch to batch through `batch_size`
    parallel streams of the text. What is exported scores windows without a past."""
    packing: Literal["contiguous", "best_fit", "lines"] = "contiguous"
    """How documents become rows. `contiguous`: one after the other, cut where a row
    ends. `best_fit`: as many as fit, cut only if longer than the context, and each sees
    only itself. `lines`: a document a row, in rows of an eighth, a quarter, half or all
    of the context. An n-gram model counts documents whole."""
    augmentation: AugmentationConfig = AugmentationConfig()
    learning_rate: Annotated[float, Field(gt=0)] | None = None
    final_learning_rate: Annotated[float, Field(ge=0, le=1)] | None = None
    """End of the schedule, or its least value, as a share of its peak."""
    warmup_steps: Annotated[int, Field(ge=0)] | None = None
    weight_decay: Annotated[float, Field(ge=0)] | None = None
    beta_2: Annotated[float, Field(ge=0, lt=1)] | None = None
    """Of `adam`, `adamw` and `lion`."""
    clip_norm: Annotated[float, Field(ge=0)] | None = None
    """Bound on the gradient's global norm; 0 for none."""
    optimizer: _Optimizer | None = None
    """With another than `adamw` the recipe's learning rate and weight decay are
    translated; `nt_asgd` is AWD-LSTM's."""
    schedule: _Schedule | None = None
    """What follows the warm-up. `plateau` falls where the evaluation loss stays."""
    decay_every_steps: Annotated[int, Field(ge=1)] | None = None
    """Steps between two falls of the schedule `step`."""
    decay_factor: Annotated[float, Field(gt=0, lt=1)] | None = None
    """What a fall of `step` or `plateau` multiplies the learning rate with."""
    plateau_patience: Annotated[int, Field(ge=1)] | None = None
    """Evaluations without a better loss until `plateau` falls."""
    momentum: Annotated[float, Field(ge=0, lt=1)] | None = None
    """Of `sgd`."""
    averaging_patience: Annotated[int, Field(ge=1)] | None = None
    """Of `nt_asgd`: evaluations that averaging waits for a better loss."""
    ema_momentum: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Of an exponential moving average of the weights, which is what is evaluated and
    exported; such as 0.999."""
    gradient_accumulation_steps: Annotated[int, Field(ge=1)] | None = None
    """Batches of a step: their gradients are those of one large batch."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of a target's probability that is spread over the vocabulary in training;
    the losses shown and evaluated are without."""
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    """Of computations in training; weights, and what is exported, are float32."""
    freeze: list[Annotated[str, Field(min_length=1)]] = []
    """Patterns of names of layers that keep their weights, such as `recurrent_*`."""
    eval_every_steps: Annotated[int, Field(ge=1)] | None = None
    """Steps between evaluations during training; the last step is one, too."""
    early_stopping_patience: Annotated[int, Field(ge=1)] | None = None
    """Evaluations without better bits per byte after which training ends. What is
    exported then are the weights of the best."""
    checkpoint_seconds: Annotated[float, Field(gt=0)] = 20.0
    """Time between checkpoints, from which a killed run goes on."""
    checkpoint_steps: Annotated[int, Field(ge=1)] | None = None
    """Steps between checkpoints, besides those by the clock."""
    keep_checkpoints: Annotated[int, Field(ge=1)] = 2
    """How many are kept while training goes on, the newest; if one cannot be read, that
    before it is."""
    jit_compile: bool = True
    """Whether XLA compiles the training step: some seconds once, then small models are
    faster; at some ten million weights on a CPU it is much the same. On a GPU,
    recurrent models train on cuDNN instead."""
    strategy: Literal["auto", "one_device", "mirrored", "multi_worker", "tpu"] = "auto"
    """The devices that share each batch, in equal parts: `mirrored`, all GPUs of a
    machine, or its logical CPUs; `multi_worker`, the processes that TF_CONFIG names,
    each but the first a `langzoo worker`; `tpu`, that of TPU_NAME. `auto` is what there
    is: a TPU, workers, several GPUs, else one device."""
    seed: Annotated[int, Field(ge=0)] = 0

    @pydantic.model_validator(mode="after")
    def _settings_are_of_what_is_chosen(self) -> TrainerConfig:
        for name, (key, values) in _SETTINGS_OF.items():
            chosen = getattr(self, key) or _RECIPE[key]
            if getattr(self, name) is not None and chosen not in values:
                raise ValueError(
                    f"trainer.{name} is a setting of trainer.{key} "
                    f"{' or '.join(values)}, which is {chosen}"
                )
        shared = self.strategy not in ("auto", "one_device")
        if shared and (self.carry_state or (self.gradient_accumulation_steps or 1) > 1):
            raise ValueError(
                "trainer.carry_state and trainer.gradient_accumulation_steps need "
                f"trainer.strategy one_device: it is {self.strategy}"
            )
        if self.schedule == "step" and self.decay_every_steps is None:
            raise ValueError("trainer.schedule step needs trainer.decay_every_steps")
        if self.optimizer == "nt_asgd" and self.ema_momentum is not None:
            raise ValueError(
                "trainer.ema_momentum and trainer.optimizer nt_asgd both average the "
                "weights: give one of them"
            )
        return self

    @pydantic.model_validator(mode="after")
    def _what_needs_evaluations_has_them(self) -> TrainerConfig:
        needs = {
            "early_stopping_patience": self.early_stopping_patience is not None,
            "schedule plateau": self.schedule == "plateau",
            "optimizer nt_asgd": self.optimizer == "nt_asgd",
        }
        for name, given in needs.items():
            if given and self.eval_every_steps is None:
                raise ValueError(f"trainer.{name} needs trainer.eval_every_steps")
        return self


class WatchConfig(Section):
    """How the training can be watched. Nothing of it changes what is learned, and a
    change of it neither trains again nor loses a checkpoint."""

    tensorboard: bool = True
    """Whether there are logs for TensorBoard."""
    graph: bool = False
    """Whether they hold the model's graph."""
    profile_steps: (
        Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=2, max_length=2)]
        | None
    ) = None
    """First and last step, such as `[20, 30]`, of which they hold a profile."""
    sample_tokens: Annotated[int, Field(ge=0)] = 0
    """Tokens of text that the model writes at every evaluation of
    `trainer.eval_every_steps`, from one seed; 0 for no text."""
    sample_prompt: str = ""
    """What that text begins with."""
    wandb_project: Annotated[str, Field(min_length=1)] | None = None
    """Project of Weights & Biases that is told as well: `pip install 'langzoo[wandb]'`,
    and `WANDB_API_KEY` or `WANDB_MODE=offline` in the environment."""

    @pydantic.model_validator(mode="after")
    def _what_is_in_the_logs_has_logs(self) -> WatchConfig:
        for name in ("graph", "profile_steps"):
            if getattr(self, name) and not self.tensorboard:
                raise ValueError(f"watch.{name} needs watch.tensorboard true")
        first, last = self.profile_steps or (1, 1)
        if first > last:
            raise ValueError(
                f"watch.profile_steps [{first}, {last}] must be the first step and the "
                "last"
            )
        return self


_SHORTEST = 9  # Of a trial of Hyperband, whose others are 3 and 9 times as long.


class SearchConfig(Section):
    """A search for hyperparameters before the training, which takes the best.

    A trial is a training with values of `space` in the place of the configuration's;
    the one with the fewest bits per byte on the evaluation split is the best.
    """

    algorithm: Literal["hyperband", "random", "bayesian"] = "hyperband"
    """`hyperband` begins many trials and goes on with the best; `bayesian` draws near
    what was good."""
    trials: Annotated[int, Field(ge=1)] = 13
    """How many there are at most. Hyperband's first nine and the four that go on from
    them are 13; all of a round are 23."""
    steps: Annotated[int, Field(ge=1)] = 300
    """Of a trial, in the place of `trainer.steps`; with `hyperband` of the longest, and
    the others have a third and a ninth."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Of what is drawn."""
    space: Annotated[dict[str, Any], pydantic.AfterValidator(search_space.normalized)]
    """By key of `model` and `trainer`, such as `model.hidden_dim`, a list of values, or
    a range, such as `{min: 1e-3, max: 1e-2, sampling: log}` or, with equal distances,
    `{min: 0.0, max: 0.5, step: 0.1}`. The default is the family's space, which stands
    in pipelines/configs/spaces."""

    @pydantic.model_validator(mode="after")
    def _hyperband_has_steps(self) -> SearchConfig:
        if self.algorithm == "hyperband" and self.steps < _SHORTEST:
            raise ValueError(
                f"search.steps {self.steps} must be at least {_SHORTEST} with "
                "search.algorithm hyperband"
            )
        return self


def _root(folder: str) -> str:
    scheme, separator, _ = folder.partition("://")
    if separator and scheme not in ("gs", "file", "ram"):
        raise ValueError(
            f"root: TensorFlow writes to no {scheme}://: take a folder or gs://; "
            "corpus.path and serving.push_folder can be s3://"
        )
    # What stands behind a slash too many is another file in a store.
    return folder.rstrip("/") if separator else folder


class Config(Section):
    """Everything that a run depends on."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$", max_length=60)]
    """Name of the pipeline; runs of one name share artifacts and blessed models."""
    root: Annotated[str, Field(min_length=1), pydantic.AfterValidator(_root)] = (
        "langzoo-runs"
    )
    """Folder for artifacts, metadata and logs of all pipelines; not `s3://`, which
    TensorFlow does not write."""
    corpus: CorpusSettings = CorpusSettings()
    cleaning: CleaningSettings = CleaningSettings()
    tokenizer: TokenizerSettings = TokenizerSettings()
    model: ModelSettings
    trainer: TrainerConfig = TrainerConfig()
    watch: WatchConfig = WatchConfig()
    search: SearchConfig | None = None
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
    def folder(self) -> Path:
        """Folder of this pipeline."""
        return Path(self.root, self.name).absolute()

    @property
    def weights_preset(self) -> str:
        """Folder of the preset whose weights training goes on with, or ""."""
        return getattr(self.model, "initial_weights", None) or ""

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
    def _lengths_fit(self) -> Config:
        self.serving.lengths(self.model.context_length)
        return self

    @pydantic.model_validator(mode="after")
    def _tokenizer_fits_the_model(self) -> Config:
        from_preset = self.tokenizer.type == "preset"
        weights = self.weights_preset
        if from_preset and not (weights or getattr(self.model, "preset", "")):
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
        if (
            self.trainer.carry_state
            and not family_named(self.model.family).carries_state
        ):
            recurrent = [it.name for it in FAMILIES.values() if it.carries_state]
            raise ValueError(
                "trainer.carry_state needs a family that has a state, one of "
                f"{', '.join(recurrent)}: model.family is {self.model.family}"
            )
        return self

    @pydantic.model_validator(mode="after")
    def _the_packing_fits(self) -> Config:
        packing = self.trainer.packing
        if self.trainer.carry_state and packing != "contiguous":
            raise ValueError(
                "trainer.carry_state needs trainer.packing contiguous, where a row "
                f"goes on from the one before: it is {packing}"
            )
        family = family_named(self.model.family)
        apart = family.keeps_documents_apart or not family.learns_by_gradient
        if packing == "best_fit" and not apart:
            raise ValueError(
                "trainer.packing best_fit needs a family that keeps the documents of a "
                f"row apart, which {self.model.family} does not: take contiguous or "
                "lines"
            )
        return self

    @pydantic.model_validator(mode="after")
    def _rules_can_be_kept(self) -> Config:
        self.gate.require_measurable(self.corpus.features)
        return self

    @pydantic.model_validator(mode="after")
    def _there_is_something_to_watch(self) -> Config:
        if self.watch.sample_tokens and self.trainer.eval_every_steps is None:
            raise ValueError("watch.sample_tokens needs trainer.eval_every_steps")
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
        if not family_named(self.model.family).learns_by_gradient:
            raise ValueError(
                "search.algorithm hyperband tells trainings by their first steps, and "
                "an n-gram model only counts: take random or bayesian"
            )
        known = search_space.combinations(self.search.space)
        if known < _SHORTEST:
            raise ValueError(
                f"search.space has {known:.0f} combination(s), and search.algorithm "
                f"hyperband begins with {_SHORTEST}: take random"
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
        """Returns the resolved configuration, every default included."""
        return yaml.safe_dump(self.model_dump(), sort_keys=False)


def _absolute(folder: str) -> str:
    return folder if "://" in folder else os.path.abspath(folder)
