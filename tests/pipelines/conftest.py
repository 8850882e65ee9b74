"""A small pipeline, run once for all tests of a session that need one."""

from __future__ import annotations

import dataclasses
import functools
import http.server
import io
import json
import os
import pydoc_data.topics
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import trustme
import unchecked
from forked_containers import run_forked
from gcp_storage_emulator import server as emulator
from gcp_storage_emulator import storage as emulated
from gcp_storage_emulator.handlers import buckets
from langzoo.pipelines.configuration import loading
from langzoo.pipelines.configuration.config import Config
from langzoo.pipelines.kubeflow import container
from langzoo.pipelines.kubeflow import rehearsal as rehearsal_module
from langzoo.pipelines.kubeflow.rehearsal import run_measured
from langzoo.pipelines.local import runner
from quick_beam import quick_beam  # noqa: F401
from rich.console import Console

# Far from a good model, yet out of reach of one whose predictions are uniform.
BOUND = 4.2


@pytest.fixture(scope="session")
def settings(tmp_path_factory):
    """A small corpus of real text and a tiny model."""
    root = tmp_path_factory.mktemp("pipeline")
    corpus = root / "texts"
    corpus.mkdir()
    for name, text in sorted(pydoc_data.topics.topics.items())[:40]:
        (corpus / f"{name}.txt").write_text(text, encoding="utf-8")
    return [
        f"root={root}",
        f"corpus.path={corpus}",
        "corpus.documents=paragraph",
        "tokenizer.vocabulary_size=512",
        "model.context_length=32",
        "model.num_layers=1",
        "model.hidden_dim=32",
        "trainer.batch_size=16",
        "trainer.steps=150",
        "trainer.learning_rate=1e-2",
        "trainer.warmup_steps=10",
        # It takes longer than so few steps; long trainings below have it.
        "trainer.jit_compile=false",
        f"gate.max_bits_per_byte={BOUND}",
    ]


@pytest.fixture(scope="session")
def run_pipeline(settings):
    """Runs it with changed settings; gives configuration, result and what was shown.

    Its export is not checked. Where it is not `apart`, it has no signature but those
    that the pipeline asks for, and is served in this process.
    """

    def run(*changes, apart=False, **options):
        config = loading.load(settings=[*settings, *changes])
        output = io.StringIO()
        with unchecked.exports() if apart else unchecked.pipelines():
            result = runner.run(config, Console(file=output, width=200), **options)
        return config, result, output.getvalue()

    return run


@pytest.fixture(scope="module")
def as_containers():
    """A rehearsal's containers are forks, which find the components; gives what runs.

    It is what `run_measured` is to a rehearsal.
    """

    def run_container(command, **options):
        run = run_forked if container.__name__ in command else run_measured
        return run(command, **options)

    with pytest.MonkeyPatch.context() as patch:
        # Processes do not know how pytest found them.
        root = str(Path(loading.__file__).parents[2])
        patch.setenv("PYTHONPATH", root, prepend=os.pathsep)
        patch.setattr(rehearsal_module, "run_measured", run_container)
        yield run_container


@pytest.fixture(scope="session")
def first(run_pipeline):
    """The first run, which trains, blesses and pushes a model, by a server apart."""
    return run_pipeline(apart=True)


@pytest.fixture(scope="session")
def refused():
    """Settings of a pipeline of which nothing is blessed, nor served.

    Its runs share the data, and meet no model of the others'.
    """
    return ["name=refused", "gate.max_bits_per_byte=0.1"]


@pytest.fixture(scope="session")
def export_of():
    """Gives the export of the model that a run has trained."""

    def find(result):
        execution = result.training_folder.name
        trainer = result.training_folder.parents[1]
        return trainer / "model" / execution / "Format-Serving"

    return find


@pytest.fixture(scope="session")
def run_command():
    """Gives the command line of a run with settings."""

    def command(*settings):
        arguments = [f"--set={setting}" for setting in settings]
        return [sys.executable, "-m", "langzoo", "run", *arguments]

    return command


@dataclasses.dataclass(frozen=True)
class Resumed:
    """A run whose training was killed before, in another process.

    Attributes:
        config: Its configuration.
        result: What it did.
        shown: What it showed.
        versions: Those that were pushed before.
        again: Runs it again, and returns the result.
    """

    config: Config
    result: runner.RunResult
    shown: str
    versions: list[Path]
    again: Callable[[], runner.RunResult]


@pytest.fixture(scope="session")
def resumed(first, settings, run_pipeline, run_command, tmp_path_factory):
    """The second run: its model keeps all rules but that of the margin.

    The process that is killed has said nothing on the error stream.
    """
    rules = [
        {"metric": "bits_per_byte", "against": "ngram", "margin": -9.0},
        {"metric": "latency_ms", "max": 1e4},
        {"metric": "memorization_rate", "max": 1.0},
    ]
    changes = [
        "trainer.steps=800",
        "trainer.jit_compile=true",
        "trainer.checkpoint_seconds=0.3",
        "gate.min_improvement=5.0",
        f"gate.rules={json.dumps(rules)}",
    ]
    folder = first[0].folder
    versions = sorted((folder / "serving").iterdir())
    kept = set(folder.glob("checkpoints/*/checkpoint"))
    errors = tmp_path_factory.mktemp("resumed") / "errors"
    with errors.open("w") as file:
        command = run_command(*settings, *changes)
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=file)
    try:
        deadline = time.monotonic() + 300
        while kept == set(folder.glob("checkpoints/*/checkpoint")):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)
    finally:
        process.kill()
        process.wait()
    assert errors.read_text() == ""
    config, result, shown = run_pipeline(*changes)
    return Resumed(config, result, shown, versions, lambda: run_pipeline(*changes)[1])


# Google's credentials of a user whose token is good for long.
USER = {
    "type": "authorized_user",
    **dict.fromkeys(("client_id", "client_secret", "refresh_token", "token"), "x"),
    "expiry": "2999-01-01T00:00:00Z",
}


class Store(emulator.RequestHandler):
    """A Google Cloud Storage: the emulator's, and what TensorFlow needs besides.

    TensorFlow asks the public address alone; but it goes through a proxy, which this
    is, too, and believes the authority that it is told of.
    """

    protocol_version = "HTTP/1.1"
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)

    def do_CONNECT(self):
        self.send_response(200)
        self.end_headers()
        self.request = self.tls.wrap_socket(self.request, server_side=True)
        self.setup()
        self.close_connection = False

    def parse_request(self):
        understood = super().parse_request()
        if understood:
            # What is here is linked to here.
            port = self.server.server_address[1]
            del self.headers["Host"]
            self.headers["Host"] = f"127.0.0.1:{port}"
            if "chunked" in self.headers.get("Transfer-Encoding", ""):
                del self.headers["Content-Length"]
        return understood

    def do_GET(self):
        if not self.path.endswith("/storageLayout"):
            super().do_GET()
            return
        response = emulator.Response(self)
        response.json({"hierarchicalNamespace": {"enabled": False}})
        response.close()


class Router(emulator.Router):
    """One request at a time, as the emulator's storage is."""

    lock = threading.Lock()

    def handle(self, method):
        with self.lock:
            super().handle(method)


def read_data(handler, query, read=emulator._read_data):
    """What is uploaded; an object may be empty, as those that stand for folders are."""
    data = read(handler, query)
    return b"" if data is None and query.get("uploadType") == ["media"] else data


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Address of a bucket of a store on this machine, for as long as the module."""
    folder = tmp_path_factory.mktemp("store")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "authority.pem")
    authority.issue_cert("*.googleapis.com").configure_cert(Store.tls)
    (folder / "user.json").write_text(json.dumps(USER))
    storage = emulated.Storage(use_memory_fs=True)
    buckets.create_bucket("bucket", storage)
    handler = functools.partial(Store, storage)
    with (
        pytest.MonkeyPatch.context() as patch,
        http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server,
    ):
        patch.setattr(emulator, "Router", Router)
        patch.setattr(emulator, "_read_data", read_data)
        # `a/` and `a` are different objects.
        patch.setattr(emulated._FileStore, "_norm", staticmethod(lambda path: path))
        url = f"http://127.0.0.1:{server.server_address[1]}"
        patch.setenv("https_proxy", url)
        patch.setenv("no_proxy", "127.0.0.1,localhost")
        patch.setenv("CURL_CA_BUNDLE", str(folder / "authority.pem"))
        patch.setenv("GOOGLE_AUTH_TOKEN_FOR_TESTING", "token")
        # And Google's Python clients, which look for credentials for long otherwise.
        patch.setenv("STORAGE_EMULATOR_HOST", url)
        patch.setenv("GOOGLE_CLOUD_PROJECT", "project")
        patch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(folder / "user.json"))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield "gs://bucket"
        server.shutdown()
