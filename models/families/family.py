"""What a family of models is: one record, and the settings that a person gives.

Importing this module imports neither TensorFlow nor Keras.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple, Self

import pydantic
from pydantic import Field

from ..learning.recipe import Recipe
from ..settings import PathText, Section, explain
from ..tasks.classifying import PoolingName
from ..tasks.task import Task

_BYTES = 260  # tokens of the byte tokenizer
# Settings that are no arguments of a backbone; the context length is, as
# `max_sequence_length`.
_OF_THE_MODEL = ("family", "context_length", "initial_weights")


class Counts(NamedTuple):
    """What of a model is multiplied, and what is not.

    `products`: weights that every token is multiplied with. `others`: weights that are
    added, or looked up, or multiply single numbers. `attention`: multiply-adds between
    a token and the positions of a full context.
    """

    products: int
    others: int
    attention: int = 0


class Size(NamedTuple):
    """How large a model is and what a token costs it, by formula: nothing is built.

    A token's floating-point operations are those of the matrix products of a forward
    pass over a full context, a multiply-add counted as two: twice the weights that
    every token is multiplied with, the output layer's included, and for attention the
    products with all positions of the context, as Hoffmann et al. count them. Looking
    up an embedding costs nothing; activations, normalizations, biases and the softmax,
    a percent or so, are left out, as Kaplan et al. leave them out.

    References:
        - [Kaplan et al., 2020](https://arxiv.org/abs/2001.08361), table 1
        - [Hoffmann et al., 2022](https://arxiv.org/abs/2203.15556), appendix F
    """

    parameters: int
    flops_per_token: int


class FamilySettings(Section):
    """What a person may say of a model of any family."""

    family: str
    """A name of `langzoo models`, or `module:NAME` for a family of your own."""
    context_length: Annotated[int, Field(ge=8, le=65_536)] = 128
    """Tokens that the model sees at once."""

    @classmethod
    def names(cls) -> list[str]:
        """Of all settings: the family, its own, and those that others have, too."""
        annotated = [vars(base).get("__annotations__", ()) for base in cls.__mro__]
        known = (name for names in annotated for name in names)
        ordered = dict.fromkeys(["family", *known])
        return [name for name in ordered if name in cls.model_fields]

    def resolved(self) -> Self:
        """The same, with a value where `None` stands for one that others give."""
        return self

    @classmethod
    def parts_of(cls, model: Mapping[str, Any]) -> list[dict[str, Any]]:
        """What of a model learns by itself: all of it, or each of several members.

        Args:
            model: `family` and what else `build_causal_lm` takes; so are the parts.
        """
        return [dict(model)]

    def counts(self, vocabulary_size: int) -> Counts | None:
        """What of a model with so many token ids is multiplied, if that is known."""
        return None

    def size(self, vocabulary_size: int) -> Size | None:
        """How large a model with so many token ids is.

        `None` where that depends on what it has learned, as it does for n-grams.
        """
        counts = self.counts(vocabulary_size)
        if counts is None:
            return None
        return Size(
            parameters=counts.products + counts.others,
            flops_per_token=2 * (counts.products + counts.attention),
        )


class LearnedSettings(FamilySettings):
    """What a person may say of a model that learns by gradient."""

    initial_weights: PathText | None = None
    """Folder of a preset that an earlier run has saved, of a pipeline (`ROOT/NAME`) for
    what it trained last, or of Hugging Face's with a BERT in `safetensors`: training
    goes on with those weights, and needs their tokenizer (`tokenizer.type: preset`).
    Family and hyperparameters are the preset's where they are not given."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the activations that a training step sets to zero."""


class NetworkSettings(LearnedSettings):
    """What the networks of the zoo have in common: embeddings before, logits behind."""

    ngram_embeddings: Annotated[int, Field(ge=1, le=8)] = 1
    """Tokens of the longest n-gram whose embedding is added to that of its last token:
    2 for bigrams, 3 for trigrams besides; 1 for none."""
    ngram_buckets: Annotated[int, Field(ge=1)] = 8192
    """Embeddings that all n-grams of a length share, by a hash."""
    ngram_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the n-grams whose embeddings are zero in a step, so that in text that is
    read twice not all is known by heart."""
    embedding_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the vocabulary whose embeddings are zero in a step, before the other
    dropouts."""
    logit_softcap: Annotated[float, Field(gt=0)] | None = None
    """Bound of the logits, such as 15: `logit_softcap * tanh(logits / logit_softcap)`.
    """

    def ngram_weights(self, width: int) -> int:
        """Those of the n-grams' embeddings."""
        return (self.ngram_embeddings - 1) * self.ngram_buckets * width


class ResidualSettings(NetworkSettings):
    """What networks with a residual stream of one width have in common."""

    residual_scales: bool = False
    """Whether every block reads `a * x + b * x0`: the stream and the embeddings, by
    two factors that it learns, at first 1 and 0."""

    def scale_weights(self, num_layers: int) -> int:
        """Those factors."""
        return 2 * num_layers if self.residual_scales else 0


class SourceSettings(LearnedSettings):
    """What networks that read a source and write a target have in common."""

    num_layers: Annotated[int, Field(ge=1)] = 4
    """Layers, or blocks, of the encoder, and of the decoder."""
    num_encoder_layers: Annotated[int, Field(ge=1)] | None = None
    """Those of the encoder, where they are not `num_layers`."""
    num_decoder_layers: Annotated[int, Field(ge=1)] | None = None
    """Those of the decoder, where they are not `num_layers`."""
    source_context_length: Annotated[int, Field(ge=8, le=65_536)] | None = None
    """Tokens of a source that the model sees, `</s>` among them; a longer one is cut.
    Without, as many as `context_length`, those of a target."""
    share_embeddings: bool = True
    """Whether source and target have the same embeddings. Where each has a tokenizer of
    its own, each has its own embeddings."""

    @property
    def depths(self) -> tuple[int, int]:
        """Layers of the encoder and of the decoder."""
        return (
            self.num_encoder_layers or self.num_layers,
            self.num_decoder_layers or self.num_layers,
        )

    def source_tables(self) -> int:
        """How many tables of embeddings the source has for itself."""
        return 0 if self.share_embeddings else 1

    @property
    def source_length(self) -> int:
        """`source_context_length`, with its default."""
        return self.source_context_length or self.context_length


class Preset(NamedTuple):
    """A named architecture: a family with its hyperparameters.

    Attributes:
        settings: its family, context length, and hyperparameters in place of defaults.
        vocabulary_size: int. Token ids that its size is told for; a model that is built
            has those of its tokenizer.
        source: where the sizes come from, if from elsewhere.
    """

    settings: FamilySettings
    vocabulary_size: int
    source: str = ""

    @classmethod
    def of(
        cls,
        settings: type[FamilySettings],
        family: str,
        context_length: int | None = None,
        vocabulary_size: int = _BYTES,
        source: str = "",
        **hyperparameters: Any,
    ) -> Preset:
        """A preset of a family; with no more than that its defaults, for bytes."""
        if context_length is not None:
            hyperparameters["context_length"] = context_length
        return cls(settings(family=family, **hyperparameters), vocabulary_size, source)

    @property
    def family(self) -> str:
        """Its name."""
        return self.settings.family

    @property
    def context_length(self) -> int:
        """Longest input, in tokens, unless another is given."""
        return self.settings.context_length

    @property
    def size(self) -> Size | None:
        """Weights and floating-point operations a token; `None` for n-grams."""
        return self.settings.size(self.vocabulary_size)

    @property
    def hyperparameters(self) -> dict[str, Any]:
        """Arguments of the family's backbone, in place of its defaults."""
        return self.settings.model_dump(
            exclude_unset=True, exclude={"family", "context_length"}
        )

    def described(self) -> dict[str, Any]:
        """Family, lengths, hyperparameters and source, for a listing."""
        return {
            "family": self.family,
            "context_length": self.context_length,
            "vocabulary_size": self.vocabulary_size,
            "hyperparameters": self.hyperparameters,
            "source": self.source,
        }


class Imported(NamedTuple):
    """How a folder of Hugging Face's becomes a model of a family, by references.

    Attributes:
        hyperparameters: Function from what its `config.json` says to hyperparameters
            and `context_length`, which raises ValueError in one line that names a key.
        weights: Function that gives a model of any task the weights, from the model and
            the folder, and raises ValueError likewise.
    """

    hyperparameters: str
    weights: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Family:
    """A family: an architecture, and all that others must know of it.

    A family of your own is such a record in a module of yours, and
    `family: mypackage.mamba:FAMILY` names it in a configuration and in
    `build_causal_lm`. It takes

    - a subclass of `LearnedSettings` (of `FamilySettings`, if it does not learn by
      gradient) with a field for each hyperparameter: its type, range and default, its
      meaning in the text under it, validators for what must fit together, `counts()`
      where its size can be told, and `resolved()` where a `None` stands for others;
    - a subclass of `langzoo.models.CausalBackbone`, or of `EncoderDecoderBackbone`,
      registered with Keras, whose attribute `family` is the record. See there for the
      methods that it needs; those that an ability below asks for besides are named
      there.

    Attributes:
        name: As it stands in configurations; of a family of your own, in messages.
        settings: The class of its settings.
        backbone: `module:Class`, imported when a model is built. Empty for a family
            whose `tasks` build all of a model.
        tasks: Tasks that it has a class of its own for, `module:Class` by the task's
            name, made as `CausalLM` is; or for a family without a backbone a function
            of the tokenizer, the context length and the settings, by keyword.
        recipe: How it learns best at its default sizes; `None` for the common recipe.
        presets: Named architectures.
        search_space: What a search tries where the configuration does not say.
        hugging_face: Folders of Hugging Face's that it takes initial weights of, by the
            `model_type` that they name.
        learns_by_gradient: Whether the Trainer takes steps, with an optimizer; else
            the task's `fit(documents)` reads the documents once, whole. Of a model of
            several parts it is asked of the family of each: see `families_of`.
        carries_state: Whether it can go on from batch to batch: the cache has one shape
            whatever the length, and the backbone has
            `call_with_state(token_ids, state, training)`, which returns hidden states
            and the next state.
        keeps_documents_apart: Whether the backbone has `call_packed()`: see
            `models/tasks/packed.py`.
        shows_attention: Whether the backbone has `attention_weights(token_ids)`, which
            returns `(batch_size, num_layers, num_heads, sequence_length,
            sequence_length)`.
        cache_goes_back: Whether `call_with_cache()` takes several tokens at once, and
            again those at positions that the cache has: a draft can be forgotten.
        multiplies_output_weights: Whether the logits are what `finish_logits()` makes
            of the hidden states times the output weights of a `ReversibleEmbedding`,
            `token_embedding`.
        predicts_next: Whether it reads a text from its beginning on, and says at each
            place what follows.
        fills_gaps: Whether each place sees the whole text, and says what is hidden
            there: its vocabulary has a token for that, see `TextTokenizer.mask_token`.
        reads_a_source: Whether it reads a source, all of it, and writes a target: the
            backbone is an `EncoderDecoderBackbone`.
        pooling: Which of a text's hidden states a classifier reads, unless it is told.
        has_hidden_states: Whether what the backbone gives are states that are alike
            where contexts are. A cache over the text so far goes by that.
    """

    name: str
    settings: type[FamilySettings]
    backbone: str = ""
    tasks: Mapping[str, str] = dataclasses.field(default_factory=dict)
    recipe: Recipe | None = None
    presets: Mapping[str, Preset] = dataclasses.field(default_factory=dict)
    search_space: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    hugging_face: Mapping[str, Imported] = dataclasses.field(default_factory=dict)
    learns_by_gradient: bool = True
    carries_state: bool = False
    keeps_documents_apart: bool = False
    shows_attention: bool = False
    cache_goes_back: bool = False
    multiplies_output_weights: bool = True
    predicts_next: bool = True
    fills_gaps: bool = False
    has_hidden_states: bool = True
    reads_a_source: bool = False
    pooling: PoolingName = "mean"

    def can(self, task: Task) -> bool:
        """Whether a model of it can learn a task."""
        able = not task.needs or getattr(self, task.needs)
        return task.name in self.tasks or bool(self.backbone and task.model and able)

    @property
    def takes_initial_weights(self) -> bool:
        """Whether a model can begin with the weights of another one."""
        return "initial_weights" in self.settings.model_fields

    def hyperparameters(self) -> dict[str, Any]:
        """The arguments of its backbone and their defaults: its own, then common ones.

        What must be given has `inspect.Parameter.empty`. (`vocabulary_size`,
        `max_sequence_length` and `dtype`, which all have, are left out.)
        """
        fields = self.settings.model_fields
        return {
            name: inspect.Parameter.empty if field.is_required() else field.default
            for name in self.settings.names()
            if name not in _OF_THE_MODEL and (field := fields[name])
        }

    def settings_of(self, **given: Any) -> FamilySettings:
        """Settings, checked.

        Raises:
            ValueError: in one line, if one is not known or cannot be.
        """
        try:
            return self.settings(**{"family": self.name, **given})
        except pydantic.ValidationError as error:
            raise ValueError(explain(error)) from None
