"""What a report says: one tree for a run, one for a comparison, both JSON as well.

Pages are made from these alone; what is `None` or empty was not found.
"""

from __future__ import annotations

from typing import Any

from ...components.evaluator.records import Definition, Evaluation, Measure, Verdict
from ...components.records import Record
from ...components.trainer.records import TrainingResult
from ...components.tuner.records import Trial
from ...models.tasks import CAUSAL_LM, TASKS
from ...models.tasks.task import Task


class Split(Record):
    """A split of the corpus; bytes are UTF-8."""

    name: str
    documents: int
    bytes: int
    tokens: int | None = None
    bytes_per_token: float | None = None
    unknown_rate: float | None = None


class Corpus(Record):
    """What was read.

    Attributes:
        sources: Paths or names of datasets.
        splits: Its splits.
        files: Number of files found.
        skipped: Why a file, or some of its records, were skipped, by path.
        left_out: Number of files that no one means, by what they are.
        cleaning: Documents that each cleaning step has changed or dropped.
        contamination: How much of each evaluation split stands in training, in words.
    """

    sources: list[str] = []
    splits: list[Split]
    files: int = 0
    skipped: dict[str, str] = {}
    left_out: dict[str, int] = {}
    cleaning: dict[str, int] = {}
    contamination: dict[str, str] = {}


class Model(Record):
    """The architecture, as the Trainer was told it."""

    family: str
    context_length: int | None = None
    hyperparameters: dict[str, Any] = {}


class Sample(Record):
    """A text that a model has written: in training at a step, or after a prompt."""

    text: str
    prompt: str = ""
    reference: str = ""
    step: int | None = None


class Serving(Record):
    """What became of the model after the gate.

    Attributes:
        refusal: Why the model server refused it, if it did.
        version: The pushed version, if there is one.
        folder: Where it was pushed to.
    """

    refusal: str = ""
    version: str = ""
    folder: str = ""


class Artifact(Record):
    """An artifact of MLMD.

    Attributes:
        id: Its number there.
        type: Its type's name.
        uri: Where it lies.
        producer: Number of the execution that made it; with a result from the cache
            that is one of an earlier run.
        destination: Folder that a model was pushed to.
    """

    id: int
    type: str
    uri: str
    producer: int | None = None
    destination: str = ""


class Execution(Record):
    """An execution of MLMD.

    Attributes:
        id: Its number there.
        node: The node of the pipeline.
        state: As MLMD names it, such as COMPLETE or CACHED.
        seconds: How long it took.
        inputs: Numbers of the artifacts by input.
        outputs: Likewise by output.
    """

    id: int
    node: str
    state: str
    seconds: float
    inputs: dict[str, list[int]] = {}
    outputs: dict[str, list[int]] = {}


class RunReport(Record):
    """All that is known of a run.

    Attributes:
        pipeline: The pipeline's name.
        run_id: The run's name in MLMD.
        started: When, as ISO 8601 in local time.
        seconds: How long it took; the cache makes it short.
        failed: The nodes that did not come to their end.
        compared: Whether the run was part of a comparison, and so judged alone.
        blessed: The gate's verdict; `None` where it was not asked.
        corpus: What was read.
        model: What was trained.
        training: How.
        trials: What a search before it tried, the best first.
        evaluation: What was measured.
        verdict: The gate's decision, rule by rule.
        serving: What became of the model then.
        size_mb: Size of the SavedModel, in 10^6 bytes.
        configuration: The resolved configuration, as YAML.
        versions: Versions of packages.
        executions: The run's executions.
        artifacts: The artifacts that they read or wrote.
        page: Where the report is, where it has been written.
    """

    pipeline: str
    run_id: str
    started: str
    seconds: float
    failed: list[str] = []
    compared: bool = False
    blessed: bool | None = None
    corpus: Corpus | None = None
    model: Model | None = None
    training: TrainingResult | None = None
    trials: list[Trial] = []
    evaluation: Evaluation | None = None
    verdict: Verdict | None = None
    serving: Serving | None = None
    size_mb: float | None = None
    configuration: str = ""
    versions: dict[str, str] = {}
    executions: list[Execution] = []
    artifacts: list[Artifact] = []
    page: str = ""

    @property
    def task(self) -> Task:
        """What the model has learned to do."""
        return self.evaluation.gated if self.evaluation else CAUSAL_LM

    def output(self, node: str, key: str) -> str:
        """Folder of an output of the run; "" where there is none."""
        uris = {artifact.id: artifact.uri for artifact in self.artifacts}
        for execution in self.executions:
            if execution.node == node and key in execution.outputs:
                return uris[execution.outputs[key][0]]
        return ""

    @property
    def metrics(self) -> dict[str, Measure]:
        """The candidate's measures of all documents."""
        return self.evaluation.candidate if self.evaluation else {}

    @property
    def outcome(self) -> str:
        """What came of the run, in a word or two."""
        if self.failed:
            return "failed"
        if self.blessed is None:
            return "not judged"
        if not self.blessed:
            return "refused"
        if self.serving and self.serving.refusal:
            return "not served"
        return "pushed" if self.serving and self.serving.version else "blessed"

    @property
    def reasons(self) -> list[str]:
        """Why it was not pushed, where it was not."""
        if self.failed:
            return [f"{node} did not end" for node in self.failed]
        if self.verdict and not self.verdict.blessed:
            return [str(rule) for rule in self.verdict.broken]
        refusal = self.serving.refusal if self.serving else ""
        return [refusal] if refusal else []


class Candidate(Record):
    """A model in a comparison.

    Attributes:
        name: What it is called there.
        rank: Its place, from 1; `None` for one that failed.
        error: Why it failed, if it did.
        run: Its run.
    """

    name: str
    rank: int | None = None
    error: str = ""
    run: RunReport | None = None


class ComparisonReport(Record):
    """Models side by side, the best first.

    Attributes:
        pipeline: The pipeline's name.
        started: When, as ISO 8601 in local time.
        seconds: How long it took.
        task: What they have learned to do.
        metric: Name of the metric that ranks them.
        corpus: What all of them have learned from.
        definitions: What the metrics are.
        candidates: The models.
        pushed: Name and version of the model that was pushed, if that was wanted.
        versions: Versions of packages.
    """

    pipeline: str
    started: str
    seconds: float
    task: str = CAUSAL_LM.name
    metric: str
    corpus: Corpus | None = None
    definitions: dict[str, Definition] = {}
    candidates: list[Candidate]
    pushed: str = ""
    versions: dict[str, str] = {}

    @property
    def gated(self) -> Task:
        """The task, which says by which metric models are gated."""
        return TASKS[self.task]
