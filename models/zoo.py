"""Models by name: a family, a task and a tokenizer make one."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras_hub
import numpy as np
from keras_hub.src.utils.preset_utils import (
    TASK_CONFIG_FILE,
    check_config_class,
    check_file_exists,
    load_json,
)

from . import families
from .backbone import CausalBackbone, FamilyBackbone, require
from .encoder_decoder import EncoderDecoderBackbone
from .families.family import Family
from .families.keras_hub.adapter import KerasHubCausalLM
from .families.keras_hub.seq_to_seq_lm import KerasHubSeqToSeqLM
from .families.presets import PRESETS, imported, resolved
from .hugging_face import config_of
from .learning.recipe import COMMON
from .references import load
from .tasks import TASKS
from .tasks.causal_lm import CausalLM
from .tasks.seq_to_seq_lm import SeqToSeqLM, SeqToSeqLMPreprocessor
from .tasks.task import Task
from .tokenizers import table
from .tokenizers.files import tokenizer_of

table.register()


def backbone_cls(family: Family) -> type[FamilyBackbone]:
    """The class of a family's backbones, imported.

    Raises:
        ValueError: in one line, if there is none, or it lacks what one must have.
    """
    try:
        cls = load(family.backbone)
    except ImportError as error:
        raise ValueError(str(error)) from error
    kind = EncoderDecoderBackbone if family.reads_a_source else CausalBackbone
    require(
        isinstance(cls, type) and issubclass(cls, kind),
        f"The backbone of family {family.name!r} must be a subclass of "
        f"{kind.__name__}.",
        backbone=family.backbone,
    )
    require(
        getattr(cls, "family", None) is family,
        "The attribute `family` of a backbone must be the record that names it.",
        backbone=family.backbone,
    )
    return cls


FAMILIES: dict[str, type[FamilyBackbone]] = {
    name: backbone_cls(family)
    for name, family in families.FAMILIES.items()
    if family.backbone
}
"""The backbone class of each family, by the name used in configurations.

They are imported here, so that Keras knows all of them when a preset is loaded.
"""


def hyperparameters(family: str) -> dict[str, Any]:
    """The hyperparameters of a family and their defaults.

    Raises:
        ValueError: if there is no such family.
    """
    record = families.family_of(family)
    return record.hyperparameters() | ({"dtype": None} if record.backbone else {})


def build(
    family: str,
    tokenizer: Any,
    context_length: int | None = None,
    initial_weights: str | None = None,
    *,
    task: str | Task = "causal_lm",
    of_task: Mapping[str, Any] | None = None,
    source_tokenizer: Any = None,
    **hyperparameters_: Any,
) -> Any:
    """Builds an untrained model of a family, or after a preset.

    Args:
        family: a name of a family, or of a preset (`families.presets.PRESETS`), or
            `module:NAME` for a `Family` of your own. `"keras_hub"` takes `preset` and
            `pretrained`, see `keras_hub.presets.build_from_preset`.
        tokenizer: a tokenizer of `langzoo.models`.
        context_length: int. Longest input, or target, in tokens. Defaults to the
            preset's; with a family it must be given.
        initial_weights: string or `None`. Folder of a preset, or of Hugging Face's, of
            this architecture, with this tokenizer, of any task. Defaults to new ones.
        task: a name of a task, of `tasks.TASKS`, or a `Task`. Defaults to
            `"causal_lm"`.
        of_task: what the task's models take besides, such as `labels`.
        source_tokenizer: that of the source, if there is one and it is another.
        **hyperparameters_: those of the family, see `hyperparameters()`, in place of
            the preset's and of their defaults.

    Returns:
        A model of the task, such as a `CausalLM`, with its preprocessor, compiled with
        the family's recipe.

    Raises:
        ValueError: if a name is unknown, a value out of range, or the weights others'.

    Example:
    ```python
    model = build_causal_lm("lstm", ByteTokenizer(), 64, num_layers=2)
    model = build_causal_lm("gpt2_tiny", ByteTokenizer())
    model = build_causal_lm("keras_hub", ByteTokenizer(), 64, preset="gpt2_base_en")
    ```
    """
    if family in PRESETS:
        given = {} if context_length is None else {"context_length": context_length}
        model = resolved({"preset": family, **hyperparameters_, **given})
        model |= {"initial_weights": initial_weights, "task": task, "of_task": of_task}
        return build(tokenizer=tokenizer, source_tokenizer=source_tokenizer, **model)
    record = families.family_of(family)
    task = _task(task)
    _require_known(record, family, task, initial_weights, hyperparameters_)
    model = _untrained(
        *(record, task, tokenizer, context_length, source_tokenizer),
        *(of_task or {}, hyperparameters_),
    )
    if initial_weights is not None:
        _load(model, tokenizer, initial_weights)
    if record.backbone and record.learns_by_gradient:
        model.compile(optimizer=(record.recipe or COMMON).make_optimizer())
    return model


def from_hugging_face(
    folder: str | os.PathLike[str],
    context_length: int | None = None,
    *,
    task: str | Task,
    of_task: Mapping[str, Any] | None = None,
    **hyperparameters_: Any,
) -> Any:
    """A model with the weights and the tokenizer of a folder of Hugging Face's.

    The folder has a `config.json`, weights in `safetensors` (`model.safetensors`, or
    shards and their index) and a `tokenizer.json` or `vocab.txt`. Pickled weights are
    never read.

    Args:
        folder: of BERT's kind (`model_type` `bert`). It becomes a model of the family
            `bert`, with the hidden states of texts of one segment; a masked language
            model has the folder's head, too, and the logits, if there is one. Heads of
            other tasks are left out, and those of `task` drawn.
        context_length: int or `None`. Longest input, in tokens. Defaults to `None`, as
            many as the folder's model has positions.
        task: as of `build`.
        of_task: as of `build`.
        **hyperparameters_: such as `dropout`, in place of the folder's.

    Raises:
        ValueError: in one line, naming what of it is not supported.

    Example:
    ```python
    labels = {"labels": ["negative", "positive"]}
    model = from_hugging_face("bert", 64, task="text_classifier", of_task=labels)
    ```
    """
    given = {} if context_length is None else {"context_length": context_length}
    folder = os.fspath(folder)
    model = resolved({"initial_weights": folder, **hyperparameters_, **given})
    return build(tokenizer=tokenizer_of(folder), task=task, of_task=of_task, **model)


def from_preset(preset: str, context_length: int | None = None) -> Any:
    """A model as `save_to_preset()` has written it, with its tokenizer.

    Args:
        preset: the folder.
        context_length: of a model of KerasHub's that writes, as of `KerasHubCausalLM`.
    """
    task: Any = _task_of(preset)
    if task is not None and not issubclass(task, keras_hub.models.CausalLM):
        return task.from_preset(preset)
    if task is not None and issubclass(task, keras_hub.models.Seq2SeqLM):
        if issubclass(task, SeqToSeqLM):
            return task.from_preset(preset)
        return KerasHubSeqToSeqLM.from_preset(preset, context_length=context_length)
    model = keras_hub.models.CausalLM.from_preset(preset)
    if isinstance(model, CausalLM):
        return model
    return KerasHubCausalLM.from_preset(preset, context_length=context_length)


build_causal_lm = build
"""`build`, by the name of its default task."""


def _untrained(
    record: Family,
    task: Task,
    tokenizer: Any,
    context_length: int | None,
    source_tokenizer: Any,
    of_task: Mapping[str, Any],
    hyperparameters_: dict[str, Any],
) -> Any:
    """A model as `build` makes it, its weights drawn; see there."""
    cls: Any = load(record.tasks.get(task.name, task.model))
    reads = getattr(cls, "preprocessor_cls", None) is SeqToSeqLMPreprocessor
    require(
        source_tokenizer is None or reads,
        "`source_tokenizer` is for models of the zoo that read a source.",
        family=record.name,
    )
    if not record.backbone:
        given = {"context_length": context_length, **of_task, **hyperparameters_}
        return cls(tokenizer=tokenizer, **given)
    if source_tokenizer is not None and record.reads_a_source:
        size = source_tokenizer.vocabulary_size()
        hyperparameters_ = {**hyperparameters_, "source_vocabulary_size": size}
    backbone = _backbone(record, cls, tokenizer, context_length, hyperparameters_)
    lengths: dict[str, Any] = {"sequence_length": backbone.max_sequence_length}
    if reads:
        lengths = _lengths(backbone, source_tokenizer)
    preprocessor = cls.preprocessor_cls(tokenizer, **lengths)
    return cls(backbone=backbone, preprocessor=preprocessor, **of_task)


def _task(task: str | Task) -> Task:
    """The task of a name.

    Raises:
        ValueError: if there is none.
    """
    if isinstance(task, Task):
        return task
    require(task in TASKS, f"`task` must be one of {sorted(TASKS)}.", task=task)
    return TASKS[task]


def _lengths(backbone: Any, source_tokenizer: Any) -> dict[str, Any]:
    """What a preprocessor of sources and targets takes besides a tokenizer."""
    longest = backbone.max_sequence_length
    return {
        "encoder_sequence_length": getattr(backbone, "max_source_length", longest),
        "decoder_sequence_length": backbone.max_sequence_length,
        "source_tokenizer": source_tokenizer,
    }


def _backbone(
    family: Family,
    cls: Any,
    tokenizer: Any,
    context_length: int | None,
    hyperparameters_: dict[str, Any],
) -> FamilyBackbone:
    """The backbone of a model of a class, which may go with one of its own."""
    require(
        context_length is not None and context_length > 0,
        "`context_length` must be positive.",
        context_length=context_length,
    )
    vocabulary_size = tokenizer.vocabulary_size()
    if family.fills_gaps:
        vocabulary_size = max(vocabulary_size, tokenizer.mask_token_id + 1)
    own = cls.backbone_cls
    return (own if isinstance(own, type) else backbone_cls(family))(
        vocabulary_size=vocabulary_size,
        max_sequence_length=context_length,
        **hyperparameters_,
    )


def _require_known(
    record: Family,
    family: str,
    task: Task,
    initial_weights: str | None,
    given: dict[str, Any],
) -> None:
    can = [known.name for known in TASKS.values() if record.can(known)]
    require(
        record.can(task),
        f"Models of family {family!r} can learn {can}.",
        task=task.name,
    )
    require(
        initial_weights is None or record.takes_initial_weights,
        "`initial_weights` are for families of the zoo that learn by gradient.",
        family=family,
    )
    known = hyperparameters(family)
    unknown = sorted(set(given) - set(known))
    require(
        not unknown,
        f"Hyperparameters of {family!r} must be among {sorted(known)}.",
        unknown=unknown,
    )


def _load(model: Any, tokenizer: Any, preset: str) -> None:
    """Gives a model the weights of a preset, beyond its backbone's where they fit."""
    require(
        tokenizer.get_vocabulary() == tokenizer_of(preset).get_vocabulary(),
        "`initial_weights` need the tokenizer of their preset.",
        tokenizer=type(tokenizer).__name__,
        initial_weights=preset,
    )
    if config := config_of(Path(preset)):
        try:
            load(imported(config)[1].weights)(model, preset)
        except ValueError as error:
            raise ValueError(f"`initial_weights` {preset}: {error}") from error
        return
    saved = _shortened(keras_hub.models.Backbone.from_preset(preset), model.backbone)
    require(
        [weight.shape for weight in saved] == _shapes(model.backbone),
        "`initial_weights` must be those of a model of the same sizes.",
        initial_weights=preset,
    )
    model.backbone.set_weights(saved)
    task: Any = _task_of(preset)
    if model.has_task_weights() and task is type(model):
        whole = task.from_preset(preset)
        weights = _shortened(whole, model)
        if [weight.shape for weight in weights] == _shapes(model):
            model.set_weights(weights)


def _shortened(saved: Any, model: Any) -> list[np.ndarray]:
    """Weights of a model, of learned positions as many as another one has."""
    backbone, other = (getattr(it, "backbone", it) for it in (saved, model))
    layer = getattr(backbone, "position_embedding", None)
    learned = getattr(layer, "position_embeddings", None)
    return [
        value[: other.max_sequence_length] if weight is learned else value
        for weight, value in zip(saved.weights, saved.get_weights(), strict=True)
    ]


def _task_of(preset: str) -> type | None:
    """The class of the task that a preset was saved of, if of one."""
    if not check_file_exists(preset, TASK_CONFIG_FILE):
        return None
    return check_config_class(load_json(preset, TASK_CONFIG_FILE))


def _shapes(model: Any) -> list[tuple[int, ...]]:
    return [tuple(weight.shape) for weight in model.weights]
