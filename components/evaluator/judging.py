"""How a model is judged, in a pipeline and outside of one."""

from __future__ import annotations

import contextlib
import functools
import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import apache_beam as beam
from google.protobuf.message import DecodeError

from ...models.tasks import TASKS
from ...serving.errors import ServingError
from ...serving.export import contract, saved_model
from ...serving.in_process import ExportedModel, signatures
from .. import large_buffers
from ..documents import Documents
from ..errors import InputError
from ..limits import LONGEST
from ..progress import report
from ..text_example_gen.records import Contamination, Splitting
from . import probes
from .gate import verdict
from .gate.decision import Decision
from .measured import Measured
from .measures import analysis, exported
from .measures.adapting import NOT_ADAPTING, Adapting
from .measures.metric import own
from .measures.metrics import TEXT
from .measures.slices import LENGTH, OTHERS, Told, told_apart
from .measures.writing import TARGET, Writing
from .records import CANDIDATE, OVERALL, Baseline, Sample
from .settings import EvaluatorSettings

_SAMPLES = 3
_PROMPT_WORDS = 6
_LATENCY_TEXTS = 20


class Split(NamedTuple):
    """The split that a model is judged by.

    Attributes:
        name: Its name.
        splitting: What decides which documents are in it, where that is known. A model
            that may have learned from some of them is left out.
        selected_on: Those that the candidate was selected on, where they are others.
        contamination: How much of it stands in the training split, where that has been
            measured.
    """

    name: str = "eval"
    splitting: Splitting | None = None
    selected_on: Documents | None = None
    contamination: Contamination | None = None


EVAL = Split()


def judge(
    models: Mapping[str, str],
    documents: Documents,
    settings: EvaluatorSettings,
    output: str,
    make_pipeline: Callable[[], beam.Pipeline],
    *,
    train_texts: Iterable[str] = (),
    left_out: Mapping[str, str] | None = None,
    of: Split = EVAL,
    compared_with: Baseline | None = None,
    accepted: bool = False,
    taken_back: int | None = None,
    preset: str = "",
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
        left_out: Why models are not among `models` though there are such, by name.
        of: Of which split the documents are.
        compared_with: Which model is the last blessed one.
        accepted: Whether the candidate need not be better than that.
        taken_back: The version that the candidate is, where a rollback went back to one
            before it.
        preset: Folder of the candidate as a Keras preset, for dynamic evaluation.

    Raises:
        InputError: Where the candidate cannot be read, or has no preset that is needed.
    """
    measured = measure(
        models,
        documents,
        settings,
        output,
        make_pipeline,
        train_texts=train_texts,
        left_out=left_out,
        of=of,
        preset=preset,
    )
    return verdict.decide(
        settings.bounds,
        measured,
        compared_with=compared_with,
        accepted=accepted,
        taken_back=taken_back,
    )


def measure(
    models: Mapping[str, str],
    documents: Documents,
    settings: EvaluatorSettings,
    output: str,
    make_pipeline: Callable[[], beam.Pipeline],
    *,
    train_texts: Iterable[str] = (),
    left_out: Mapping[str, str] | None = None,
    of: Split = EVAL,
    preset: str = "",
) -> Measured:
    """Measures a candidate, and the models that it is compared with; see `judge`."""
    task = settings.task
    missing = missing_signatures(models[CANDIDATE], task)
    if contract.EVALUATE.name in missing:
        return Measured(task, missing_signatures=missing)
    texts = [] if missing else _beginnings(documents)
    seconds: dict[str, float] = {}
    with _timed(seconds, "export"):
        reasons, of_exports = _measure_exports(models, of, texts, task)
    left_out = {**(left_out or {}), **reasons}
    for name in left_out.keys() - {CANDIDATE}:
        report(f"{name} is not compared with: {left_out[name]}")
    models = {n: p for n, p in models.items() if n == CANDIDATE or n not in left_out}
    told = told_apart_in(documents, settings)
    analyzed = functools.partial(
        _analyzed, settings=settings, told=told, make_pipeline=make_pipeline
    )
    besides = _besides(settings, models, preset)
    with _timed(seconds, "analysis"):
        sums = analyzed(models, documents, output, **besides)
    selected_on = None
    if of.selected_on:
        only, folder = {CANDIDATE: models[CANDIDATE]}, f"{output}/selected_on"
        with _timed(seconds, "selected_on"):
            found = analyzed(only, of.selected_on, folder)
        selected_on = found[CANDIDATE][OVERALL]
    probed = probes.Probed({}, {})
    if settings.probed and texts:
        asked = settings.probes or probes.ProbeSettings()
        of_them = (models[CANDIDATE], documents, train_texts, asked, of.contamination)
        with _timed(seconds, "probes"):
            probed = probes.run(settings.probed, *of_them)
    return Measured(
        task,
        split=of.name,
        sums=sums,
        selected_on=selected_on,
        exported=of_exports,
        probes=probed.metrics,
        details=probed.details,
        samples=_samples(models[CANDIDATE], documents, task) if texts else [],
        left_out=left_out,
        missing_signatures=missing,
        seconds=seconds,
        labels=_labels(models, task),
        adapt=settings.adapt,
        own={name: own(metric) for name, metric in settings.own_metrics.items()},
    )


def _adapting(settings: EvaluatorSettings, candidate: str, preset: str) -> Adapting:
    """How the models adapt.

    Raises:
        InputError: Where that needs a preset, and there is none.
    """
    if settings.adapt.dynamic is None:
        return Adapting(settings.adapt)
    if not preset:
        raise InputError(
            "dynamic evaluation (gate.adapt.dynamic, or a rule about it) needs the "
            "weights of the model: give its Keras preset with --preset"
        )
    made = saved_model.read_metadata(candidate)
    return Adapting(settings.adapt, preset, made["stride"], made["context_length"])


def _besides(
    settings: EvaluatorSettings, models: Mapping[str, str], preset: str
) -> dict[str, Any]:
    """How the models adapt and write, where that is measured besides their scores."""
    how = settings.generate
    return {
        "adapting": _adapting(settings, models[CANDIDATE], preset),
        "writing": Writing(models, how) if how else None,
    }


def _labels(models: Mapping[str, str], task: str) -> dict[str, list[str]]:
    """The labels that each model knows, where its task has such."""
    if not any("by_label" in known.outputs for known in contract.SIGNATURES[task]):
        return {}
    # An export of another task, which the gate refuses, has none.
    return {
        name: saved_model.read_metadata(path).get("labels", [])
        for name, path in models.items()
    }


def _beginnings(documents: Iterable[str]) -> list[str]:
    """Those of the first documents."""
    first = itertools.islice(documents, _LATENCY_TEXTS)
    return [text[:LONGEST] for text in first]


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


def missing_signatures(path: str, task: str) -> list[str]:
    """Signatures that a task needs and a SavedModel lacks; all where there is none."""
    there, known = signatures(path), contract.SIGNATURES[task]
    needed = [signature.name for signature in known if signature.is_needed]
    return [name for name in needed if name not in there]


def _measure_exports(
    models: Mapping[str, str], of: Split, texts: list[str], task: str
) -> tuple[dict[str, str], dict[str, dict[str, float]]]:
    """What is measured of each export.

    And first why models cannot be compared on a split, by name.

    Raises:
        InputError: Where the candidate cannot be read.
    """
    left_out: dict[str, str] = {}
    measured: dict[str, dict[str, float]] = {}
    cut: list[Any] = []
    for name, path in models.items():
        try:
            if reason := _unfit(path, of, task, is_candidate=name == CANDIDATE):
                left_out[name] = reason
                if name != CANDIDATE:
                    continue
            # What it has besides its graph may be gone, too.
            model = ExportedModel(path)
        except (InputError, DecodeError, ServingError) as error:
            if name == CANDIDATE:
                raise InputError(f"the model cannot be read: {error}") from error
            left_out[name] = f"it cannot be read ({error})"
            continue
        with model:
            if texts and _is_of_tokens(path, task):
                cut.append(model.tokenize(texts))
                if cut[-1] != cut[0]:
                    left_out[name] = (
                        "it has another tokenizer than the candidate, and "
                        f"{TASKS[task].words} compare only with the same"
                    )
                    continue
            measured[name] = {exported.SIZE.name: exported.size_mb(path)}
            if texts:
                latency = exported.latency_ms(model, texts)
                measured[name][exported.LATENCY.name] = latency
    return left_out, measured


def _is_of_tokens(path: str, task: str) -> bool:
    """Whether a model is measured by its tokens, and tells them."""
    return TASKS[task].is_of_tokens and contract.TOKENIZE.name in signatures(path)


def _unfit(path: str, of: Split, task: str, *, is_candidate: bool) -> str:
    """Why a model cannot be compared on a split, or ""."""
    learned = Splitting.find(path)
    # An export of old may lack it.
    if contract.EVALUATE.name not in signatures(path):
        return f"it has no signature {contract.EVALUATE.name}"
    if (learned_task := saved_model.task_of(path)) != task:
        return f"it is of task {learned_task}, and not {task}"
    if of.splitting and (learned or not is_candidate):
        return of.splitting.seen_by(learned, of.name)
    return ""


def _analyzed(
    models: Mapping[str, str],
    documents: Documents,
    output: str,
    *,
    settings: EvaluatorSettings,
    told: Told,
    make_pipeline: Callable[[], beam.Pipeline],
    adapting: Adapting = NOT_ADAPTING,
    writing: Writing | None = None,
) -> analysis.Sums:
    with large_buffers.returned(), make_pipeline() as pipeline:
        analysis.analyze(
            pipeline,
            models,
            documents.file_patterns,
            settings.sliced,
            output,
            settings.own_metrics,
            told,
            adapting,
            settings.task,
            writing,
        )
    return analysis.read_sums(output, CANDIDATE)


def _samples(path: str, documents: Documents, task: str) -> list[Sample]:
    """What a model writes: after the first words of texts, or to whole ones."""
    known = contract.SIGNATURES[task]
    if contract.GENERATE in known:
        texts = itertools.islice(documents, _SAMPLES)
        prompts = [" ".join(text[:LONGEST].split()[:_PROMPT_WORDS]) for text in texts]
        with ExportedModel(path) as model:
            answers = model.generate(prompts)
        references = [""] * len(prompts)
    elif contract.GENERATE_TARGET in known:
        pairs = itertools.islice(documents.values_of(TEXT, TARGET), _SAMPLES)
        prompts, references = ([*side] for side in zip(*pairs, strict=True))
        with ExportedModel(path) as model:
            answers = model.generate(prompts, temperature=0.0)
    else:
        return []
    return [
        Sample(prompt=prompt, text=written.text, reference=reference)
        for prompt, written, reference in zip(prompts, answers, references, strict=True)
    ]


@contextlib.contextmanager
def _timed(seconds: dict[str, float], part: str) -> Iterator[None]:
    started = time.monotonic()
    yield
    seconds[part] = time.monotonic() - started
