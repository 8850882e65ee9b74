"""The pipeline, from raw text to a pushed model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow_data_validation as tfdv
from tfx.components import SchemaGen, StatisticsGen
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
from ..components.text_example_gen.cleaning import Cleaning
from ..components.text_example_gen.component import TextExampleGen
from ..components.text_example_gen.sources import Source
from ..components.tokenizer_trainer.component import TokenizerTrainer
from ..components.trainer.component import Trainer
from ..components.trainer.ngram import NgramTrainer
from ..components.transform.component import Transform
from ..components.tuner.component import Tuner
from ..models.families.ngram.family import NGRAM
from .configuration.config import Config, TrainerConfig
from .report.reading import COMPARISON_NODE

BASELINE_RESOLVER = "BaselineResolver"


def make_components(
    config: Config,
    *,
    corpus: Sequence[Source],
    fingerprint: str,
    checkpoint_root: str,
    ingestion_record: str,
    watch: dict[str, Any] | str,
    baseline_strategy: type[ResolverStrategy] | None = None,
    blessed_record: str | None = None,
    compared: bool = False,
) -> list[BaseNode]:
    """Wires the components.

    Args:
        config: The configuration.
        corpus: The sources of the corpus, paths resolved.
        fingerprint: Changes when the corpus does; "" where that is not known.
        checkpoint_root: Folder for training checkpoints.
        ingestion_record: File that tells a run how many documents the last one had.
        watch: How the training is watched, or the file that says it.
        baseline_strategy: Chooses the model that the candidate must beat.
        blessed_record: File that tells it, where there is no strategy.
        compared: Whether the model is only to be judged, by itself: there is no
            baseline, and nothing is pushed. An evaluation under another node's name
            tells such a verdict from one that blesses a model to be served.
    """
    example_gen = TextExampleGen(
        corpus,
        eval_fraction=config.corpus.eval_fraction,
        test_fraction=config.corpus.test_fraction,
        strict=config.corpus.strict,
        steps=Cleaning(**config.cleaning.model_dump()),
        record=ingestion_record,
        allow_fewer_documents=config.corpus.allow_fewer_documents,
        fingerprint=fingerprint,
    )
    examples = example_gen.outputs["examples"]
    labels = sorted({name for source in corpus for name in source.fields})
    statistics_gen = StatisticsGen(
        examples=examples,
        # Of an id every value is new; in the schema each would be an anomaly.
        stats_options=tfdv.StatsOptions(feature_allowlist=["text", *labels]),
    )
    statistics = statistics_gen.outputs["statistics"]
    schema_gen = SchemaGen(statistics=statistics, infer_feature_shape=True)
    schema = schema_gen.outputs["schema"]
    example_validator = ExampleValidator(statistics=statistics, schema=schema)
    tokenizer_trainer = TokenizerTrainer(
        examples,
        preset=config.weights_preset or getattr(config.model, "preset", ""),
        **config.tokenizer.model_dump(),
    )
    transform = Transform(
        examples=examples,
        schema=schema,
        tokenizer=tokenizer_trainer.outputs["tokenizer"],
    )
    learner = {
        "examples": transform.outputs["transformed_examples"],
        "transform_graph": transform.outputs["transform_graph"],
        "model": config.model.model_dump(exclude_none=True),
        "training": config.trainer.model_dump(),
        "checkpoint_root": checkpoint_root,
    }
    tuners = []
    hyperparameters = None
    if config.search:
        tuners = [Tuner(**learner, search=config.search_settings)]
        hyperparameters = tuners[0].outputs["best_hyperparameters"]
    trainer = Trainer(
        **learner,
        hyperparameters=hyperparameters,
        export={
            "stride": config.serving.score_stride,
            "max_new_tokens": config.serving.max_new_tokens,
        },
        watch=watch,
    )
    model = trainer.outputs["model"]
    ngram_trainers = []
    if config.gate.needs_ngram:
        ngram_trainers = [_ngram_trainer(config, learner)]
    evaluated = {
        "examples": examples,
        "model": model,
        "ngram_model": ngram_trainers[0].outputs["model"] if ngram_trainers else None,
        "settings": config.gate.asked(config.corpus.features),
    }
    trained = [
        example_gen,
        statistics_gen,
        schema_gen,
        example_validator,
        tokenizer_trainer,
        transform,
        *tuners,
        trainer,
        *ngram_trainers,
    ]
    if compared:
        return [*trained, Evaluator(**evaluated).with_id(COMPARISON_NODE)]
    resolvers = []
    baseline_model = None
    if baseline_strategy:
        resolvers = [
            Resolver(
                strategy_class=baseline_strategy,
                config={"push_folder": config.push_folder},
                model=Channel(type=standard_artifacts.Model),
                model_blessing=Channel(type=standard_artifacts.ModelBlessing),
                candidate=model,
            ).with_id(BASELINE_RESOLVER)
        ]
        baseline_model = resolvers[0].outputs["model"]
    record = None
    if blessed_record:
        record = BlessedRecord(file=blessed_record, push_folder=config.push_folder)
    evaluator = Evaluator(
        **evaluated, baseline_model=baseline_model, blessed_record=record
    )
    serving_validator = ServingValidator(
        model=model,
        model_blessing=evaluator.outputs["blessing"],
        examples=examples,
    )
    pusher = Pusher(
        model=model,
        model_blessing=evaluator.outputs["blessing"],
        infra_blessing=serving_validator.outputs["blessing"],
        push_folder=config.push_folder,
        card=Card(
            name=config.name,
            model=config.model.model_dump(exclude_none=True),
            tokenizer=config.tokenizer.type,
            sources=[source.path for source in config.corpus.all_sources],
            **config.card.model_dump(),
        ),
        evaluation=evaluator.outputs["evaluation"],
        examples=examples,
        model_run=trainer.outputs["model_run"],
    )
    return [*trained, *resolvers, evaluator, serving_validator, pusher]


def _ngram_trainer(config: Config, learner: dict[str, Any]) -> NgramTrainer:
    """Trains the n-gram model of the gate: by all defaults, on the same tokens."""
    model = NGRAM.settings_of(context_length=config.model.context_length)
    changed = {"model": model.model_dump(), "training": TrainerConfig().model_dump()}
    export = {"stride": config.serving.score_stride, "max_new_tokens": None}
    return NgramTrainer(**{**learner, **changed}, export=export)
