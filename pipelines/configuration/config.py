"""The configuration of a pipeline: one YAML file, checked before anything starts.

Importing this module imports neither TensorFlow nor TFX.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
import yaml
from pydantic import Field

from ...components import demo_corpus
from ...components.evaluator.settings import GateSettings, RuleSettings
from ...components.pusher.settings import CardSettings
from ...components.text_example_gen.sources import Source
from ...components.tuner import search_space
from ...models.families import FAMILIES, family_of
from ...models.families.family import Family, FamilySettings
from ...models.families.presets import resolved
from ...models.references import is_reference
from . import beam

DEMO_CONFIG = Path(__file__).parents[1] / "configs" / "demo.yaml"
DEMO_CORPUS = demo_corpus.NAME
# The special tokens, and the bytes at the start of a word and within it.
_WORD_PIECE_BYTES = 4 + 2 * 256


class ConfigError(ValueError):
    """A configuration that cannot be used; the message is one line for the user."""


class _Loader(yaml.SafeLoader):
    """YAML 1.1, but 3e-4 is a number, as it is in YAML 1.2 and as people write it."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+[eE][-+]?[0-9]+"), "-+0123456789"
)


def _parse(text: str) -> Any:
    return yaml.load(text, _Loader)


class _Section(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", strict=True, frozen=True)


_Format = Literal["auto", "text", "jsonl", "csv", "tsv", "parquet"]
_Unit = Literal["file", "paragraph", "line"]
_FieldName = Annotated[str, Field(min_length=1)]


class SourceConfig(_Section):
    """One of several sources; what is not given is as in the corpus."""

    path: Annotated[str, Field(min_length=1)]
    format: _Format | None = None
    documents: _Unit | None = None
    text_field: _FieldName | None = None
    fields: dict[str, _FieldName] | None = None
    weight: Annotated[float, Field(gt=0, le=1000)] = 1.0
    """How often a document stands in the training split; 2.5 is twice, and half of the
    documents three times; 0.1 keeps a tenth of them. The document's hash decides."""


class CorpusConfig(_Section):
    """What text goes in."""

    path: Annotated[str, Field(min_length=1)] = DEMO_CORPUS
    """A file, a folder (read recursively) or a pattern, plain or compressed (`.gz`,
    `.zst`), on any filesystem of Beam's or `s3://`; of `{SPAN}` and `{VERSION}` in it
    the highest number is read. Or a dataset, `hf://NAME:CONFIGURATION@SPLIT` or
    `tfds://NAME@SPLIT`. `demo` is Python's own documentation."""
    format: _Format = "auto"
    """`auto` goes by the ending of each file's name: `.jsonl`, `.ndjson`, `.csv`,
    `.tsv`, `.parquet`, before that of the compression; others are text."""
    documents: _Unit = "file"
    """What one document of a text file is; in other formats it is a record."""
    text_field: _FieldName = "text"
    """The field or column that holds the text, where documents are records."""
    fields: dict[str, _FieldName] = {}
    """Fields or columns that travel with the text, by the name of the feature that they
    become, such as `{label: sentiment}`; as strings, into the transformed examples."""
    sources: list[SourceConfig] = []
    """Several sources in one corpus, in place of `path`."""
    eval_fraction: Annotated[float, Field(ge=0.001, le=0.5)] = 0.1
    """Share of documents held out for evaluation."""
    test_fraction: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    """Share of documents that neither training nor evaluation sees, as `test`."""
    allow_fewer_documents: bool = False
    """Whether to go on where the last run had ten times as many documents."""
    strict: bool = False
    """Whether a file or record that cannot be used is an error instead of skipped."""

    @property
    def all_sources(self) -> list[Source]:
        """The sources, each with all that it takes from the corpus."""
        given = self.sources or [SourceConfig(path=self.path)]
        options = self.model_dump(
            include={"format", "documents", "text_field", "fields"}
        )
        return [
            Source(**(options | source.model_dump(exclude_none=True)))
            for source in given
        ]

    @property
    def features(self) -> list[str]:
        """Features that the examples have besides the text."""
        return sorted({name for source in self.all_sources for name in source.fields})

    @pydantic.model_validator(mode="after")
    def _something_is_left_for_training(self) -> CorpusConfig:
        if self.eval_fraction + self.test_fraction > 0.999:
            raise ValueError(
                f"corpus.eval_fraction {self.eval_fraction} and corpus.test_fraction "
                f"{self.test_fraction} must leave documents for training"
            )
        return self

    @pydantic.model_validator(mode="after")
    def _is_one_path_or_several_sources(self) -> CorpusConfig:
        if self.sources and self.path != DEMO_CORPUS:
            raise ValueError(
                f"corpus.path {self.path!r} and corpus.sources: give one of them"
            )
        return self

    @pydantic.model_validator(mode="after")
    def _fields_have_names_of_their_own(self) -> CorpusConfig:
        for source in self.all_sources:
            for name in source.fields:
                if not name.isidentifier() or name in ("text", "id", "token_ids"):
                    raise ValueError(
                        f"corpus.fields: {name!r} cannot be the name of a feature: "
                        "it is one word, not text, id or token_ids, such as label"
                    )
        return self


_FUNCTION = r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$"


class CleaningConfig(_Section):
    """What is done to documents before they are split, in this order."""

    normalize: Literal["NFC", "NFKC"] | None = None
    """Unicode normalization form."""
    remove_control_characters: bool = False
    """All but newline and tab."""
    mask_emails: bool = False
    mask_phones: bool = False
    """Those with a `+`, or with an area code and separators."""
    min_bytes: Annotated[int, Field(ge=1)] | None = None
    """Shorter documents are dropped; likewise below."""
    max_bytes: Annotated[int, Field(ge=1)] | None = None
    min_characters: Annotated[int, Field(ge=1)] | None = None
    max_characters: Annotated[int, Field(ge=1)] | None = None
    filter: Annotated[str, Field(pattern=_FUNCTION)] | None = None
    """A function of yours, `module:function`, from a text to a bool or a score."""
    filter_threshold: float = 0.5
    """Documents that score less are dropped; a bool counts 0 or 1."""
    drop_duplicates: bool = False
    """Of equal documents, keeps the one with the smallest id."""
    drop_near_duplicates: bool = False
    """Of documents much alike, keeps the one with the smallest id (MinHash)."""
    near_duplicate_threshold: Annotated[float, Field(ge=0.3, lt=1)] = 0.8
    """Share of their shingles that near duplicates have in common (Jaccard)."""
    shingles: Literal["words", "characters"] = "words"
    """What a shingle is made of; languages without spaces need characters."""
    shingle_length: Annotated[int, Field(ge=1, le=100)] = 5
    """Words, or characters, in a shingle."""

    @pydantic.model_validator(mode="after")
    def _some_length_is_allowed(self) -> CleaningConfig:
        for unit in ("bytes", "characters"):
            least, most = getattr(self, f"min_{unit}"), getattr(self, f"max_{unit}")
            if least and most and least > most:
                raise ValueError(
                    f"cleaning.min_{unit} {least} must be at most cleaning.max_{unit} "
                    f"{most}"
                )
        return self


class TokenizerConfig(_Section):
    """How text becomes tokens."""

    type: Literal[
        "bpe",
        "unigram",
        "word_piece",
        "words",
        "characters",
        "bytes",
        "preset",
        "file",
    ] = "bpe"
    """All give back any text exactly, but `words`, which loses words that it does not
    know: spelling them is counted in bits per byte, as uniform bytes, and not in the
    perplexity of a token. `preset` takes the tokenizer of `model.preset` or
    `model.initial_weights`, and `file` that of `path`, instead of learning one."""
    vocabulary_size: Annotated[int, Field(ge=300, le=1_000_000)] = 8192
    """Tokens at most. With `bpe`, `unigram` and `characters` 256 of them are bytes, and
    with `word_piece` 512, so any text is covered."""
    sample_bytes: Annotated[int, Field(ge=1000)] = 10_000_000
    """Largest sample of the corpus that `bpe` and `unigram` are learned from; words and
    characters are counted in the whole corpus, and `word_piece` learns from counts."""
    seed: int = 0
    path: Annotated[str, Field(min_length=1)] | None = None
    """For `file`: a SentencePiece model, a `tokenizer.json` of Hugging Face with byte
    pairs of GPT-2's, Llama 2's or Llama 3's kind, Unigram of T5's or WordPiece of
    BERT's, or the folder of a KerasHub preset. What a vocabulary lacks is spelled in
    bits per byte; what one normalizes before it cuts a text (case, white space) is not
    counted, and the run warns of it."""

    @pydantic.model_validator(mode="after")
    def _a_path_goes_with_a_file(self) -> TokenizerConfig:
        if (self.type == "file") != (self.path is not None):
            raise ValueError(
                "tokenizer.path and tokenizer.type file need each other: type is "
                f"{self.type}, path is {self.path}"
            )
        if self.path is not None and not Path(self.path).expanduser().exists():
            raise ValueError(f"tokenizer.path {self.path!r} does not exist")
        return self

    @pydantic.model_validator(mode="after")
    def _the_bytes_fit(self) -> TokenizerConfig:
        if self.type == "word_piece" and self.vocabulary_size < _WORD_PIECE_BYTES:
            raise ValueError(
                f"tokenizer.vocabulary_size {self.vocabulary_size} must be at least "
                f"{_WORD_PIECE_BYTES} with type word_piece"
            )
        return self


def _of_its_family(content: Any) -> FamilySettings:
    """The section `model`: what is said of a model, as its family has it."""
    if isinstance(content, FamilySettings):
        return content
    if not isinstance(content, dict):
        raise ValueError(f"model: {content!r} cannot be: it has keys, such as family")
    if "family" not in content:
        raise ValueError("the key model.family is missing")
    return _family(content["family"]).settings.model_validate(content)


def _family(name: Any) -> Family:
    if name not in FAMILIES and not is_reference(str(name)):
        known = ", ".join(map(repr, FAMILIES))
        raise ValueError(
            f"model.family: {name!r} is not known: it is {known}, or module:NAME for "
            "one of your own"
        )
    try:
        return family_of(name)
    except ValueError as error:
        raise ValueError(f"model.family: {error}") from error


class _InSchema:
    """Tells the families of the zoo in the JSON schema of the section `model`."""

    def __get_pydantic_json_schema__(
        self, core_schema: Any, handler: pydantic.GetJsonSchemaHandler
    ) -> dict[str, Any]:
        sections = []
        for name, family in FAMILIES.items():
            section = handler(family.settings.__pydantic_core_schema__)
            section["properties"]["family"] = {"const": name}
            sections.append(section)
        return {"oneOf": sections, "discriminator": {"propertyName": "family"}}


ModelConfig = Annotated[
    pydantic.SerializeAsAny[FamilySettings],
    pydantic.PlainValidator(_of_its_family),
    _InSchema(),
]


class AugmentationConfig(_Section):
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


class TrainerConfig(_Section):
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


class WatchConfig(_Section):
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


class SearchConfig(_Section):
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


class ServingConfig(_Section):
    """How the model is exported and where it is pushed."""

    push_folder: Annotated[str, Field(min_length=1)] | None = None
    """Folder that the model server watches; default `ROOT/NAME/serving`."""
    score_stride: Annotated[int, Field(ge=1)] | None = None
    """Step between the windows in which long documents are scored; default half the
    context."""
    max_new_tokens: Annotated[int, Field(ge=1)] | None = None
    """Most tokens that one request may generate; default half the context."""


class TolerationConfig(_Section):
    """A taint of nodes that a container may run on, as Kubernetes has it."""

    key: Annotated[str, Field(min_length=1)]
    operator: Literal["Equal", "Exists"] = "Exists"
    value: str = ""
    """What the taint's value is, with `Equal`."""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    """Which of the key's taints; without, all."""


class ContainerConfig(_Section):
    """Where a component runs on Kubeflow, and with what. What is not given here is as
    in `kubeflow`, and without that as the cluster has it."""

    image: Annotated[str, Field(min_length=1)] | None = None
    """An image with langzoo in it: see the Dockerfile."""
    cpu: Annotated[float, Field(gt=0)] | None = None
    """Cores at most."""
    memory_gb: Annotated[float, Field(gt=0)] | None = None
    """Gigabytes of memory at most; what needs more is killed."""
    accelerator: Annotated[str, Field(min_length=1)] | None = None
    """Resource of the cluster, such as `nvidia.com/gpu` or `google.com/tpu`."""
    accelerator_count: Annotated[int, Field(ge=1)] = 1
    environment: dict[str, str] = {}
    """Variables, on top of those of `kubeflow`."""
    retries: Annotated[int, Field(ge=0)] | None = None
    """How often a container that failed is started again; a training goes on from its
    last checkpoint then."""
    cache: bool | None = None
    """Whether an earlier result stands where inputs and parameters are the same; by
    default not, and the Evaluator's never. New files behind the same path are not seen
    then."""
    node_selector: dict[str, str] = {}
    """Labels of the nodes that the container may run on."""
    tolerations: list[TolerationConfig] = []


class KubeflowConfig(ContainerConfig):
    """How the compiled pipeline runs: for all components, and for some of them.

    A Trainer on a GPU is `trainer: {accelerator: nvidia.com/gpu, image: ...}`.
    """

    volumes: dict[str, str] = {}
    """By name of a claim (PersistentVolumeClaim), the absolute path where all
    containers find it, such as `{models: /models}` for a push folder in it."""
    pipeline_root: (
        Annotated[str, Field(pattern=r"^(gs|s3|minio)://[^/=]+(/[^/=]+)*$")] | None
    ) = None
    """What Kubeflow takes for the place of artifacts, such as the store that it brings
    along, `minio://mlpipeline/v2/artifacts`. They lie in `root`, which is then a folder
    on a volume. Without it they lie where `root`, an address itself, says."""
    text_example_gen: ContainerConfig = ContainerConfig()
    statistics_gen: ContainerConfig = ContainerConfig()
    schema_gen: ContainerConfig = ContainerConfig()
    example_validator: ContainerConfig = ContainerConfig()
    tokenizer_trainer: ContainerConfig = ContainerConfig()
    transform: ContainerConfig = ContainerConfig()
    tuner: ContainerConfig = ContainerConfig()
    trainer: ContainerConfig = ContainerConfig()
    ngram_trainer: ContainerConfig = ContainerConfig()
    evaluator: ContainerConfig = ContainerConfig()
    serving_validator: ContainerConfig = ContainerConfig()
    pusher: ContainerConfig = ContainerConfig()

    def of(self, component: str) -> ContainerConfig:
        """What holds for a component.

        Args:
            component: Its name, such as `TextExampleGen`.
        """
        key = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", component).lower()
        own: ContainerConfig = getattr(self, key)
        inherited: dict[str, Any] = {
            name: getattr(self, name)
            for name in ContainerConfig.model_fields
            if name not in own.model_fields_set
        }
        if "accelerator" in own.model_fields_set:
            inherited.pop("accelerator_count", None)
        changes: dict[str, Any] = {
            "environment": {**self.environment, **own.environment}
        }
        if component == "Evaluator":
            # Which model was blessed last is not among its parameters.
            changes |= {"cache": False}
        return own.model_copy(update={**inherited, **changes})

    @pydantic.model_validator(mode="after")
    def _paths_are_absolute(self) -> KubeflowConfig:
        for claim, path in self.volumes.items():
            if not path.startswith("/"):
                raise ValueError(
                    f"kubeflow.volumes.{claim} {path!r} must be an absolute path"
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


class Config(_Section):
    """Everything that a run depends on."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$", max_length=60)]
    """Name of the pipeline; runs of one name share artifacts and blessed models."""
    root: Annotated[str, Field(min_length=1), pydantic.AfterValidator(_root)] = (
        "langzoo-runs"
    )
    """Folder for artifacts, metadata and logs of all pipelines; not `s3://`, which
    TensorFlow does not write."""
    corpus: CorpusConfig = CorpusConfig()
    cleaning: CleaningConfig = CleaningConfig()
    tokenizer: TokenizerConfig = TokenizerConfig()
    model: ModelConfig
    trainer: TrainerConfig = TrainerConfig()
    watch: WatchConfig = WatchConfig()
    search: SearchConfig | None = None
    """`{}` is a search with all defaults; without, `model` and `trainer` decide."""
    gate: GateSettings = GateSettings()
    serving: ServingConfig = ServingConfig()
    card: CardSettings = CardSettings()
    kubeflow: KubeflowConfig = KubeflowConfig()
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
        space = _family(model["family"]).search_space
        if not space:
            raise ValueError(
                f"search.space is needed with model.family {model['family']}, which "
                "has none of its own"
            )
        return {**content, "search": {**search, "space": dict(space)}}

    @pydantic.model_validator(mode="after")
    def _lengths_fit(self) -> Config:
        context_length = self.model.context_length
        for field in ("score_stride", "max_new_tokens"):
            value = getattr(self.serving, field)
            if value is not None and value >= context_length:
                raise ValueError(
                    f"serving.{field} {value} must be below model.context_length "
                    f"{context_length}"
                )
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
        if self.trainer.carry_state and not _family(self.model.family).carries_state:
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
        family = _family(self.model.family)
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
        if not _family(self.model.family).learns_by_gradient:
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
            return _explain(error, content)
        return None

    def to_yaml(self) -> str:
        """Returns the resolved configuration, every default included."""
        return yaml.safe_dump(self.model_dump(), sort_keys=False)


def _absolute(folder: str) -> str:
    return folder if "://" in folder else os.path.abspath(folder)


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
        raise ConfigError(f"{path}: {_explain(error, content)}") from error


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


def _explain(error: pydantic.ValidationError, content: dict[str, Any]) -> str:
    """Puts the first problem into one line; others are counted."""
    problems = error.errors()
    problem = problems[0]
    location = [str(part) for part in problem["loc"]]
    key = ".".join(location)
    if problem["type"] == "extra_forbidden":
        text = f"unknown key {key}{_suggest(location, content)}"
    elif problem["type"] == "missing":
        text = f"the key {key} is missing"
    elif problem["type"] == "value_error":
        text = str(problem["ctx"]["error"])
    else:
        reason = problem["msg"][0].lower() + problem["msg"][1:]
        text = f"{key}: {problem['input']!r} cannot be: {reason}"
    more = len(problems) - 1
    return f"{text} (and {more} more problem(s))" if more else text


def _suggest(location: list[str], content: dict[str, Any]) -> str:
    section: Any = Config
    for name in location[:-1]:
        if name.isdigit():  # of a list of sections
            section = RuleSettings if location[0] == "gate" else SourceConfig
            continue
        annotation = section.model_fields[name].annotation
        if name == "model":
            annotation = family_of(content["model"]["family"]).settings
        if name == "search":  # which may be none
            annotation = SearchConfig
        section = annotation
    of_a_model = issubclass(section, FamilySettings)
    known = section.names() if of_a_model else list(section.model_fields)
    close = difflib.get_close_matches(location[-1], known, n=1)
    if close:
        return f": did you mean {close[0]}?"
    return f": known are {', '.join(known)}"
