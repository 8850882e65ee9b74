"""Ingestion and Transform on Beam's runners: the same records, whatever fails."""

from __future__ import annotations

import collections
import io
import os
import re
import subprocess
import sys
import threading
import time
import types
from pathlib import Path

import apache_beam as beam
import pytest
import tensorflow as tf
import yaml
from apache_beam.options import pipeline_options
from apache_beam.options.pipeline_options_validator import PipelineOptionsValidator
from apache_beam.runners import create_runner
from apache_beam.runners.portability import local_job_service
from forked_containers import BeamWorker
from langzoo.components.errors import InputError
from langzoo.components.text_example_gen import executor as ingestion
from langzoo.components.text_example_gen.component import TextExampleGen
from langzoo.components.text_example_gen.settings import (
    CorpusSettings,
    SourceSettings,
)
from langzoo.components.transform import executor as transform
from langzoo.components.transform.component import Transform
from langzoo.components.types import Tokenizer
from langzoo.models.tokenizers.sentence_piece import train_sentencepiece
from langzoo.pipelines.configuration import loading
from langzoo.pipelines.kubeflow import compiler
from langzoo.pipelines.local import runner, worker_processes
from rich.console import Console
from tensorflow.core.protobuf import saved_model_pb2
from tfx.orchestration.kubeflow.v2.container import kubeflow_v2_run_executor
from tfx.types import artifact_utils, channel, standard_artifacts
from tfx.utils import proto_utils

IN_PROCESS = loading.load().beam_pipeline_args
PROCESSES = ["--direct_running_mode=multi_processing", "--direct_num_workers=2"]
WORKERS = [*IN_PROCESS, *PROCESSES]
SCHEMA = """
feature {
  name: "text"
  type: BYTES
  presence { min_fraction: 1 }
  shape { dim { size: 1 } }
}
"""


@pytest.fixture(scope="module")
def corpus(topics, tmp_path_factory):
    """Some files with paragraphs of real text."""
    folder = tmp_path_factory.mktemp("corpus")
    for number, text in enumerate(topics[:12]):
        (folder / f"{number:02}.txt").write_text(text, encoding="utf-8")
    return SourceSettings(path=str(folder), documents="paragraph")


@pytest.fixture(scope="module")
def inputs(topics, tmp_path_factory):
    """What Transform takes beside the examples."""
    schema, tokenizer = standard_artifacts.Schema(), Tokenizer()
    schema.uri = str(tmp_path_factory.mktemp("schema"))
    Path(schema.uri, "schema.pbtxt").write_text(SCHEMA)
    tokenizer.uri = str(tmp_path_factory.mktemp("tokenizer"))
    learned = train_sentencepiece(topics, vocabulary_size=400, model_type="bpe", seed=0)
    learned.save_to_preset(tokenizer.uri)
    return {"schema": [schema], "tokenizer": [tokenizer]}


def execute(executor, component, folder, beam_arguments, inputs, outputs):
    """Runs a component's executor as a runner of TFX's does."""
    properties = {
        name: proto_utils.proto_to_json(value)
        if hasattr(value, "SerializeToString")
        else value
        for name, value in component.exec_properties.items()
    }
    for name, (artifact,) in outputs.items():
        artifact.uri = str(folder / name)
    context = executor.Context(
        beam_pipeline_args=list(beam_arguments),
        tmp_dir=str(folder / "scratch"),
        unique_id="1",
    )
    executor(context).Do(inputs, outputs, properties)


def ingest(source, folder, beam_arguments):
    """Gives the examples that ingestion writes."""
    examples = standard_artifacts.Examples()
    corpus = CorpusSettings(sources=[source], eval_fraction=0.3)
    component = TextExampleGen(corpus)
    outputs = {"examples": [examples]}
    execute(ingestion.Executor, component, folder, beam_arguments, {}, outputs)
    return examples


def tokenize(examples, inputs, folder, beam_arguments):
    """Gives the examples that Transform writes, and the folder of its graph."""
    channels = {
        "examples": channel.Channel(type=standard_artifacts.Examples),
        "schema": channel.Channel(type=standard_artifacts.Schema),
        "tokenizer": channel.Channel(type=Tokenizer),
    }
    outputs = {
        "transform_graph": [standard_artifacts.TransformGraph()],
        "transformed_examples": [standard_artifacts.Examples()],
        "updated_analyzer_cache": [standard_artifacts.TransformCache()],
    }
    execute(
        transform.Executor,
        Transform(**channels),
        folder,
        beam_arguments,
        {"examples": [examples], **inputs},
        outputs,
    )
    (graph,), (transformed,), _ = outputs.values()
    return transformed, Path(graph.uri)


def shards_of(examples, split):
    return sorted(Path(artifact_utils.get_split_uri([examples], split)).glob("*"))


def records(examples):
    """Counts the records of each split."""
    return {
        split: collections.Counter(
            tf.data.TFRecordDataset(
                list(map(str, shards_of(examples, split))), "GZIP"
            ).as_numpy_iterator()
        )
        for split in artifact_utils.decode_split_names(examples.split_names)
    }


def files_of(graph):
    """Gives the content of the files of a transform graph, by name."""
    contents = {
        str(path.relative_to(graph)): path.read_bytes()
        for path in graph.rglob("*")
        if path.is_file()
    }
    del contents["transform_fn/fingerprint.pb"]  # a hash of the next
    model = saved_model_pb2.SavedModel.FromString(
        contents.pop("transform_fn/saved_model.pb")
    )
    # TensorFlow numbers functions in the order of their tracing in this process.
    lines = re.sub(r"(__inference_[a-z_]+)_\d+", r"\1", str(model)).splitlines()
    return contents, sorted(lines)


@pytest.fixture(scope="module")
def expected(corpus, inputs, tmp_path_factory):
    """What ingestion and Transform give in one process."""
    folder = tmp_path_factory.mktemp("in-process")
    examples = ingest(corpus, folder / "ingestion", IN_PROCESS)
    transformed, graph = tokenize(examples, inputs, folder / "transform", IN_PROCESS)
    assert all(records(examples).values())
    return records(examples), records(transformed), files_of(graph)


@pytest.fixture(scope="module")
def job_service(tmp_path_factory):
    """A job service of Beam's; gives its port."""
    folder = tmp_path_factory.mktemp("job-service")
    module = "apache_beam.runners.portability.local_job_service_main"
    port = folder / "port"
    with open(folder / "log", "w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", module, f"--port_file={port}"],
            stdout=log,
            stderr=log,
        )
    try:
        while not port.exists():
            assert process.poll() is None, (folder / "log").read_text()
            time.sleep(0.1)
        yield port.read_text()
    finally:
        process.terminate()
        process.wait()


def test_the_portable_runner_gives_the_same_bytes(
    corpus, inputs, expected, job_service, tmp_path
):
    arguments = [
        "--runner=PortableRunner",
        f"--job_endpoint=localhost:{job_service}",
        "--environment_type=LOOPBACK",
    ]
    examples = ingest(corpus, tmp_path / "ingestion", arguments)
    transformed, graph = tokenize(examples, inputs, tmp_path / "transform", arguments)
    assert (records(examples), records(transformed), files_of(graph)) == expected


def test_worker_processes_give_the_same_bytes(
    corpus, inputs, expected, tmp_path, monkeypatch
):
    # Each pipeline starts two; what runs as its own program, is killed below.
    popen = types.SimpleNamespace(Popen=BeamWorker)
    monkeypatch.setattr(local_job_service, "subprocess", popen)
    with worker_processes.watched():  # as in a run
        examples = ingest(corpus, tmp_path / "ingestion", WORKERS)
        transformed, graph = tokenize(examples, inputs, tmp_path / "transform", WORKERS)
    assert (records(examples), records(transformed), files_of(graph)) == expected
    assert len(shards_of(examples, "train")) == 2  # both have worked


def test_a_bundle_that_is_done_again_doubles_nothing(corpus, expected, tmp_path):
    again = [*IN_PROCESS, "--direct_runner_bundle_repeat=1"]
    examples = ingest(corpus, tmp_path, again)
    assert records(examples) == expected[0]
    assert [path.name for path in shards_of(examples, "train")] == [
        "data_tfrecord-00000-of-00001.gz"
    ]


FAILS_ONCE = """
import os, pathlib, signal

def passes(text):
    marker = pathlib.Path(__file__).with_name("marker")
    if "yield" in text and not marker.exists():
        marker.touch()
        {failure}
    return True
"""


@pytest.mark.parametrize(
    ("failure", "arguments", "said"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", PROCESSES, "worker process of Beam's"),
        ("raise RuntimeError('no')", [], "failed on .*RuntimeError: no"),
    ],
    ids=["killed", "raises"],
)
def test_what_fails_in_the_middle_leaves_nothing_and_the_next_run_is_right(
    corpus, expected, tmp_path, monkeypatch, failure, arguments, said
):
    monkeypatch.chdir(tmp_path)
    module = f"fails_{len(arguments)}"
    Path(f"{module}.py").write_text(FAILS_ONCE.format(failure=failure))
    Path("no_tokenizer.json").write_text("{}")  # where the run after it ends
    settings = [
        *("root=runs", "corpus.documents=paragraph", "corpus.eval_fraction=0.3"),
        f"corpus.path={corpus.path}",
        f"cleaning.filter={module}:passes",
        "tokenizer={type: file, path: no_tokenizer.json}",
    ]

    def run(arguments):
        changes = [f"beam_pipeline_args={arguments}"]
        loaded = loading.load(settings=[*settings, *changes])
        runner.run(loaded, Console(file=io.StringIO()))

    folder = Path("runs/demo/artifacts/TextExampleGen/examples")
    with pytest.raises(InputError, match=said):
        run(arguments)
    assert not [path for path in folder.rglob("*") if path.is_file()]
    with pytest.raises(InputError, match=r"no_tokenizer\.json"):
        run([])
    (uri,) = folder.iterdir()
    examples = standard_artifacts.Examples()
    examples.uri, examples.split_names = str(uri), '["train", "eval"]'
    assert records(examples) == expected[0]


def _a_worker_dies(monkeypatch, death):
    # Of TFX nothing is needed here.
    own = f"{sys.executable} -m apache_beam.runners.worker.sdk_worker_main"
    monkeypatch.setattr(worker_processes, "_COMMAND", own)
    with (
        pytest.raises(InputError, match="worker process of Beam's has died"),
        worker_processes.watched(),
        beam.Pipeline(argv=WORKERS) as pipeline,
    ):
        _ = pipeline | beam.Create([3]) | death


def test_a_worker_that_dies_where_beam_would_wait_for_ever_ends_the_run(
    monkeypatch,
):
    _a_worker_dies(monkeypatch, beam.Map(os._exit))


def test_a_worker_that_starts_after_another_died_does_not_hold_the_run(monkeypatch):
    class Dies(beam.DoFn):
        def setup(self):  # Whichever part of the work is the first's.
            os._exit(3)

    run = local_job_service.SubprocessSdkWorker.run
    dead = threading.Event()
    started = []

    def start_late(worker):
        started.append(worker)
        if len(started) == 2:
            assert dead.wait(120)
        try:
            run(worker)
        except RuntimeError:  # it says with which code it exited
            dead.set()

    monkeypatch.setattr(local_job_service.SubprocessSdkWorker, "run", start_late)
    _a_worker_dies(monkeypatch, beam.ParDo(Dies()))
    assert len(started) == 2
    assert dead.is_set()


IMAGE = "--sdk_container_image=registry/langzoo:1"
ELSEWHERE = {
    "FlinkRunner": ["--flink_master=http://flink:8081", "--parallelism=4", IMAGE],
    "SparkRunner": [
        "--spark_master_url=spark://spark:7077",
        "--environment_type=EXTERNAL",
        "--environment_config=localhost:50000",
    ],
    "DataflowRunner": [
        "--project=some-project",
        "--region=europe-west1",
        "--temp_location=gs://bucket/temporary",
        IMAGE,
    ],
    "PrismRunner": ["--prism_location=/opt/prism"],
}


@pytest.mark.parametrize("name", ELSEWHERE)
def test_a_runner_elsewhere_is_told_to_the_containers_as_beam_wants_it(
    name, tmp_path, request
):
    if name == "DataflowRunner":  # Beam looks at the bucket, and for it for long.
        request.getfixturevalue("store")
    arguments = [f"--runner={name}", *ELSEWHERE[name]]
    loaded = loading.load(settings=[f"beam_pipeline_args={arguments}"])
    compiler.compile_pipeline(loaded, tmp_path / "pipeline.yaml")
    content = yaml.safe_load((tmp_path / "pipeline.yaml").read_text())
    for executor in content["deploymentSpec"]["executors"].values():
        # What is not TFX's own goes to Beam, where a component has work for it.
        _, others = kubeflow_v2_run_executor._parse_flags(executor["container"]["args"])
        assert others == arguments
    options = pipeline_options.PipelineOptions(arguments)
    runner = create_runner(options.view_as(pipeline_options.StandardOptions).runner)
    assert type(runner).__name__ == name
    assert PipelineOptionsValidator(options, runner).validate() == []
    known = options.get_all_options()
    for option, _, value in (one[2:].partition("=") for one in arguments):
        assert str(known[option]) == value


def test_without_a_runner_this_machine_does_the_work():
    loaded = loading.load(settings=[f"beam_pipeline_args={PROCESSES}"])
    assert loaded.beam_pipeline_args == WORKERS


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--runner=PortableRunner"], "needs --job_endpoint=HOST:PORT"),
        (["--runner=portable"], "needs --job_endpoint=HOST:PORT"),
        (["--runner=DaskRunner"], "DaskRunner loses records"),
        (["--runner=FlinkRuner"], "'FlinkRuner' is not known: did you mean FlinkRunne"),
        (["--runner=cluster"], "'cluster' is not known: DirectRunner, "),
        (["--runner=DataflowRunner"], "DataflowRunner needs --project=PROJECT_ID"),
        (
            ["--runner=flinkrunner", "--flink_master=flink:8081"],
            "workers of --flink_master=flink:8081 need this package",
        ),
        (
            ["--runner=SparkRunner", "--spark_master_url=spark://a:7077"],
            "workers of --spark_master_url=spark://a:7077 need this package",
        ),
        (["direct_num_workers=2"], "'direct_num_workers=2' is no option"),
        (["--direct_running_mode=threads"], "'threads' is not known: it is one of"),
        (["--direct_num_workers=two"], "'two' is no number"),
        (["--direct_num_workers=2"], "needs --direct_running_mode=multi_processing"),
    ],
)
def test_arguments_that_cannot_be_are_named(arguments, said):
    with pytest.raises(loading.ConfigError, match=said) as raised:
        loading.load(settings=[f"beam_pipeline_args={arguments}"])
    assert "\n" not in str(raised.value)
