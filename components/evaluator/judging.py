"""How a model is judged, in a pipeline and outside of one."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping

import apache_beam as beam

from ...serving.export import contract
from ...serving.in_process import ExportedModel, signatures
from ..documents import Documents
from ..progress import report
from . import probes
from .gate import verdict
from .gate.decision import Decision
from .measured import Measured
from .measures import analysis, exported
from .measures.metric import own
from .measures.slices import LENGTH, OTHERS, Told, told_apart
from .records import CANDIDATE, Baseline, Sample
from .settings import EvaluatorSettings

SIGNATURES = [signature.name for signature in contract.SIGNATURES["causal_lm"]]
_SAMPLES = 3
_PROMPT_WORDS = 6
_LATENCY_TEXTS = 20


def judge(
    models: Mapping[str, str],
    documents: Documents,
    settings: EvaluatorSettings,
    output: str,
    make_pipeline: Callable[[], beam.Pipeline],
    *,
    train_texts: Iterable[str] = (),
    compared_with: Baseline | None = None,
    taken_back: int | None = None,
) -> Decision:
    """Measures a candidate, and the models that it is compared with, and decides.

    Args:
        models: Folders of SavedModels by name: `candidate` and, where there are such,
            `last_blessed` and `ngram`.
        documents: What they are evaluated on.
        settings: What is asked for.
        output: Folder for what TFMA writes.
        make_pipeline: Makes a Beam pipeline.
        train_texts: What the candidate was trained on, for probes that ask for it.
        compared_with: Which model is the last blessed one.
        taken_back: The version that the candidate is, where a rollback went back to one
            before it.
    """
    measured = measure(
        models, documents, settings, output, make_pipeline, train_texts=train_texts
    )
    return verdict.decide(
        settings.bounds, measured, compared_with=compared_with, taken_back=taken_back
    )


def measure(
    models: Mapping[str, str],
    documents: Documents,
    settings: EvaluatorSettings,
    output: str,
    make_pipeline: Callable[[], beam.Pipeline],
    *,
    train_texts: Iterable[str] = (),
) -> Measured:
    """Measures a candidate, and the models that it is compared with; see `judge`."""
    missing = missing_signatures(models[CANDIDATE])
    if contract.EVALUATE.name in missing:
        return Measured(missing_signatures=missing)
    models = dict(_comparable(models))
    seconds: dict[str, float] = {}
    told = told_apart_in(documents, settings)
    with _timed(seconds, "analysis"), make_pipeline() as pipeline:
        analysis.analyze(
            pipeline,
            models,
            documents.file_patterns,
            settings.sliced,
            output,
            settings.own_metrics,
            told,
        )
    texts = [] if missing else list(itertools.islice(documents, _LATENCY_TEXTS))
    with _timed(seconds, "export"):
        of_exports, samples = _measure_exports(models, texts)
    probed = probes.Probed({}, {})
    if settings.probed and texts:
        with _timed(seconds, "probes"):
            probed = probes.run(
                settings.probed,
                models[CANDIDATE],
                documents,
                train_texts,
                settings.probes or probes.ProbeSettings(),
            )
    return Measured(
        sums=analysis.read_sums(output, CANDIDATE),
        exported=of_exports,
        probes=probed.metrics,
        details=probed.details,
        samples=samples,
        missing_signatures=missing,
        seconds=seconds,
        own={name: own(metric) for name, metric in settings.own_metrics.items()},
    )


def told_apart_in(documents: Documents, settings: EvaluatorSettings) -> Told:
    """Which values have a slice each; says of which features not all have."""
    counts = documents.count_values(n for n in settings.sliced if n != LENGTH)
    named = [rule.slice for rule in settings.rules]
    told = told_apart(counts, settings.slice_values, named)
    for feature, values in told.items():
        report(
            f"gate.slices: {feature} has {len(counts[feature]):,} values: "
            f"{len(values):,} have a slice each, the others are {feature}={OTHERS}"
        )
    return told


def missing_signatures(path: str) -> list[str]:
    """Those of `SIGNATURES` that a SavedModel lacks; all where there is none."""
    there = signatures(path)
    return [name for name in SIGNATURES if name not in there]


def _comparable(models: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """The models that can be evaluated; an export of old may lack the signature."""
    for name, path in models.items():
        if contract.EVALUATE.name in signatures(path):
            yield name, path
        else:
            report(f"{name} is not compared with: it has no {contract.EVALUATE.name}")


def _measure_exports(
    models: Mapping[str, str], texts: list[str]
) -> tuple[dict[str, dict[str, float]], list[Sample]]:
    """What is measured of each export, and what the candidate writes."""
    size, latency = exported.SIZE.name, exported.LATENCY.name
    measured = {name: {size: exported.size_mb(path)} for name, path in models.items()}
    samples: list[Sample] = []
    for name, path in models.items() if texts else ():
        with ExportedModel(path) as model:
            measured[name][latency] = exported.latency_ms(model, texts)
            if name == CANDIDATE:
                samples = _samples(model, texts[:_SAMPLES])
    return measured, samples


def _samples(model: ExportedModel, texts: list[str]) -> list[Sample]:
    """What a model writes after the first words of texts."""
    prompts = [" ".join(text.split()[:_PROMPT_WORDS]) for text in texts]
    return [
        Sample(prompt=prompt, text=written.text)
        for prompt, written in zip(prompts, model.generate(prompts), strict=True)
    ]


@contextlib.contextmanager
def _timed(seconds: dict[str, float], part: str) -> Iterator[None]:
    started = time.monotonic()
    yield
    seconds[part] = time.monotonic() - started
