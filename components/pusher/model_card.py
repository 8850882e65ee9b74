"""The model card that travels with a pushed version.

It is Markdown with the metadata that the Hugging Face Hub reads, measures among them
(`model-index`).

References:
    - [Mitchell et al., 2019](https://arxiv.org/abs/1810.03993), "Model cards for model
      reporting"
    - [The Hub's model cards](https://huggingface.co/docs/hub/model-cards)
"""

from __future__ import annotations

import math
from pathlib import Path

import jinja2
from huggingface_hub import EvalResult, ModelCardData

from ... import __version__
from ...models.tasks import CAUSAL_LM
from ..evaluator import wording
from ..evaluator.records import CANDIDATE, OVERALL, Evaluation, Measure, Verdict
from ..text_example_gen.records import Summary
from ..trainer.records import TrainingResult
from .settings import Card

_HUB = "hf://"


def model_card(
    settings: Card,
    evaluation: Evaluation | None,
    verdict: Verdict | None,
    data: Summary | None,
    training: TrainingResult | None,
) -> str:
    """Writes a model card.

    Args:
        settings: What the configuration says.
        evaluation: What was measured, if that is known.
        verdict: The gate's decision, likewise.
        data: What was read, likewise.
        training: What the training did, likewise.

    Returns:
        Markdown.
    """
    metrics = evaluation.candidate if evaluation else {}
    selected_on = evaluation.selected_on if evaluation else None
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=False,  # It is Markdown.
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(
        number=wording.number,
        duration=wording.duration,
        words=wording.name_of,
        cell=lambda text: " ".join(text.replace("|", "\\|").split()),
    )
    environment.globals.update(interval=wording.interval, version=__version__)
    text = environment.get_template("model_card.md").render(
        **settings.model_dump(),
        evaluation=evaluation,
        metrics=metrics,
        labels=evaluation.labels if evaluation else [],
        spans=evaluation.spans if evaluation else [],
        selected_on=selected_on.metrics if selected_on else {},
        probes=evaluation.probes if evaluation else {},
        task=evaluation.gated if evaluation else CAUSAL_LM,
        worst=_worst_slice(evaluation) if evaluation else None,
        verdict=verdict,
        data=data,
        training=training,
    )
    return f"---\n{_metadata(settings, evaluation)}\n---\n\n{text}"


def _metadata(settings: Card, evaluation: Evaluation | None) -> str:
    task = evaluation.gated.hub if evaluation else CAUSAL_LM.hub
    return ModelCardData(
        language=list(settings.language) or None,
        license=settings.license,
        library_name="langzoo",
        pipeline_tag=task,
        tags=["langzoo", "tensorflow", "keras", settings.model["family"]],
        datasets=[
            source.removeprefix(_HUB).split("@")[0].split(":")[0]
            for source in settings.sources
            if source.startswith(_HUB)
        ]
        or None,
        model_name=settings.name,
        eval_results=[
            EvalResult(
                task_type=task,
                dataset_type="langzoo",
                dataset_name=f"{', '.join(settings.sources)} (held out)",
                dataset_split=evaluation.split,
                metric_type=name,
                metric_name=_name(name, measure),
                metric_value=round(measure.value, 6),
            )
            for name, measure in evaluation.candidate.items()
            if math.isfinite(measure.value)
        ]
        or None
        if evaluation
        else None,
    ).to_yaml()


def _name(name: str, measure: Measure) -> str:
    words = wording.name_of(name)
    between = wording.interval(measure.low, measure.high)
    return f"{words} (95 % interval {between})" if between else words


def _worst_slice(evaluation: Evaluation) -> tuple[str, float] | None:
    """The slice that the model is worst at, and how; `None` where nothing is sliced."""
    candidate = evaluation.models.get(CANDIDATE)
    task = evaluation.gated
    values = {
        name: part.metrics[task.metric].value
        for name, part in (candidate.slices if candidate else {}).items()
        if name != OVERALL and task.metric in part.metrics
    }
    known = {name: value for name, value in values.items() if math.isfinite(value)}
    if not known:
        return None
    worst = max if task.direction == "lower" else min
    return worst(known.items(), key=lambda item: item[1])
