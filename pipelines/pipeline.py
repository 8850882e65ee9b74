"""The pipeline, from raw text to a pushed model."""

from __future__ import annotations

import dataclasses
from typing import Any

from tfx.components import SchemaGen
from tfx.dsl.components.base.base_node import BaseNode
from tfx.dsl.components.common.resolver import Resolver, ResolverStrategy
from tfx.types import standard_artifacts
from tfx.types.channel import Channel

from ..components.evaluator.component import Evaluator
from ..components.evaluator.gate.baseline import BlessedRecord
from ..components.example_validator.component import ExampleValidator
from ..components.pusher.component import Pusher
from ..components.pusher.settings import Card
from ..components.serving_validator.component import ServingValidator
from ..components.statistics_gen.component import StatisticsGen
from ..components.text_example_gen.component import TextExampleGen
from ..components.text_example_gen.settings import CorpusSettings
from ..components.tokenizer_trainer.component import TokenizerTrainer
from ..components.trainer.component import Trainer
from ..components.trainer.ngram import NgramTrainer
from ..components.trainer.settings import TrainerSettings
from ..components.transform.component import Transform
from ..components.tuner.component import Tuner
from ..models.families.ngram.family import NGRAM
from .configuration.config import Config
from .report.reading import COMPARISON_NODE

BASELINE_RESOLVER = "BaselineResolver"

_Nodes = dict[str, BaseNode]


@dataclasses.dataclass(frozen=True)
class Choices:
    """What is for a runner to say.

    Attributes:
        corpus: That of the configuration, with paths that the runner can read.
        checkpoint_root: Folder for training checkpoints.
        ingestion_record: File that tells a run how many documents the last one had.
        watch: How the training is watched, or the file that says it.
        fingerprint: Changes when the corpus does; "" where that is not known.
        baseline_strategy: Chooses the model that the candidate must beat.
        accept_baseline: Whether a candidate is accepted, though it be no better.
        blessed_record: File that tells it, where there is no strategy.
        compared: Whether the model is only to be judged, by itself: there is no
            baseline, and nothing is pushed. An evaluation under another node's name
            tells such a verdict from one that blesses a model to be served.
    """

    corpus: CorpusSettings
    checkpoint_root: str
    ingestion_record: str
    watch: dict[str, Any] | str
    fingerprint: str = ""
    baseline_strategy: type[ResolverStrategy] | None = None
    accept_baseline: bool = False
    blessed_record: str | None = None
    compared: bool = False


def make_components(config: Config, choices: Choices) -> list[BaseNode]:
    """Wires the components, in the order in which they run."""
    nodes = _ingest(config, choices)
    nodes |= _learn(config, choices, nodes)
    nodes |= _judge(config, choices, nodes)
    if not choices.compared:
        nodes |= _push(config, nodes)
    return list(nodes.values())


def _ingest(config: Config, choices: Choices) -> _Nodes:
    """Text to examples, and what they are like."""
    example_gen = TextExampleGen(
        choices.corpus,
        cleaning=config.cleaning,
        record=choices.ingestion_record,
        fingerprint=choices.fingerprint,
    )
    statistics_gen = StatisticsGen(
        example_gen.outputs["examples"], choices.corpus.features
    )
    statistics = statistics_gen.outputs["statistics"]
    schema_gen = SchemaGen(statistics=statistics, infer_feature_shape=True)
    example_validator = ExampleValidator(
        statistics=statistics, schema=schema_gen.outputs["schema"]
    )
    return _by_id(example_gen, statistics_gen, schema_gen, example_validator)


def _learn(config: Config, choices: Choices, nodes: _Nodes) -> _Nodes:
    """Examples to tokens, and to a model; to an n-gram model where a rule asks."""
    examples = nodes["TextExampleGen"].outputs["examples"]
    tokenizer_trainer = TokenizerTrainer(
        examples,
        preset=config.tokenizer_preset,
        **config.tokenizer.model_dump(),
    )
    transform = Transform(
        examples=examples,
        schema=nodes["SchemaGen"].outputs["schema"],
        tokenizer=tokenizer_trainer.outputs["tokenizer"],
    )
    data = {
        "examples": transform.outputs["transformed_examples"],
        "transform_graph": transform.outputs["transform_graph"],
        "checkpoint_root": choices.checkpoint_root,
        "task": config.task,
    }
    learner = {
        **data,
        "model": config.model.model_dump(exclude_none=True),
        "training": config.trainer.model_dump(),
    }
    learned = _by_id(tokenizer_trainer, transform)
    found = None
    if config.search:
        tuner = Tuner(**learner, search=config.search_settings)
        learned |= _by_id(tuner)
        found = tuner.outputs["best_hyperparameters"]
    export = {
        "stride": config.serving.score_stride,
        "max_new_tokens": config.serving.max_new_tokens,
        "embed_pooling": config.serving.embed_pooling,
        "embed_normalize": config.serving.embed_normalize,
    }
    learned |= _by_id(
        Trainer(**learner, hyperparameters=found, export=export, watch=choices.watch)
    )
    if config.gate.needs_ngram:
        # By all defaults, on the same tokens.
        model = NGRAM.settings_of(context_length=config.model.context_length)
        ngram_trainer = NgramTrainer(
            **data,
            model=model.model_dump(),
            training=TrainerSettings().model_dump(),
            export={**export, "max_new_tokens": None},
        )
        learned |= _by_id(ngram_trainer)
    return learned


def _judge(config: Config, choices: Choices, nodes: _Nodes) -> _Nodes:
    """Whether the model is good enough, and better than the last one."""
    judged: _Nodes = {}
    told: dict[str, Any] = {
        "examples": nodes["TextExampleGen"].outputs["examples"],
        "model": nodes["Trainer"].outputs["model"],
        "settings": config.gate.asked(config.corpus.sliced_by, config.task),
    }
    if told["settings"].adapt.dynamic:
        told["model_run"] = nodes["Trainer"].outputs["model_run"]
    if "NgramTrainer" in nodes:
        told["ngram_model"] = nodes["NgramTrainer"].outputs["model"]
    if choices.compared:
        return _by_id(Evaluator(**told).with_id(COMPARISON_NODE))
    if choices.baseline_strategy:
        resolver = Resolver(
            strategy_class=choices.baseline_strategy,
            config={
                "push_folder": config.push_folder,
                "accept": choices.accept_baseline,
            },
            model=Channel(type=standard_artifacts.Model),
            accepted=Channel(type=standard_artifacts.Model),
            model_blessing=Channel(type=standard_artifacts.ModelBlessing),
            candidate=told["model"],
        ).with_id(BASELINE_RESOLVER)
        judged |= _by_id(resolver)
        told["baseline_model"] = resolver.outputs["model"]
        told["accepted_model"] = resolver.outputs["accepted"]
    if choices.blessed_record:
        told["blessed_record"] = BlessedRecord(
            file=choices.blessed_record,
            push_folder=config.push_folder,
            accept=choices.accept_baseline,
        )
    return judged | _by_id(Evaluator(**told))


def _push(config: Config, nodes: _Nodes) -> _Nodes:
    """A blessed model that a server answers with becomes a version."""
    examples = nodes["TextExampleGen"].outputs["examples"]
    model = nodes["Trainer"].outputs["model"]
    blessing = nodes["Evaluator"].outputs["blessing"]
    serving_validator = ServingValidator(
        model=model, model_blessing=blessing, examples=examples
    )
    pusher = Pusher(
        model=model,
        model_blessing=blessing,
        infra_blessing=serving_validator.outputs["blessing"],
        push_folder=config.push_folder,
        card=Card(
            name=config.name,
            model=config.model.model_dump(exclude_none=True),
            tokenizer=config.tokenizer.type,
            sources=[p for source in config.corpus.all_sources for p in source.paths],
            **config.card.model_dump(),
        ),
        evaluation=nodes["Evaluator"].outputs["evaluation"],
        examples=examples,
        model_run=nodes["Trainer"].outputs["model_run"],
    )
    return _by_id(serving_validator, pusher)


def _by_id(*nodes: BaseNode) -> _Nodes:
    return {node.id: node for node in nodes}
