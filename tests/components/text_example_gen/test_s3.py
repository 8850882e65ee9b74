"""`s3://` through TFX's fileio: a corpus is read from it, and a model pushed to it."""

from __future__ import annotations

import gzip
import io
import json
import logging
import time
import urllib.request
import uuid

import pyarrow as pa
import pyarrow.parquet
import pytest
from langzoo.components.errors import InputError
from langzoo.components.push_folder import object_stores
from langzoo.components.push_folder.records import Marker
from langzoo.components.pusher.executor import Executor as PusherExecutor
from langzoo.components.text_example_gen import files, readers
from langzoo.components.text_example_gen.records import Summary
from langzoo.components.text_example_gen.settings import SourceSettings
from langzoo.components.text_example_gen.streams import BrokenOffError
from tfx.dsl.io import fileio
from tfx.proto import pusher_pb2
from tfx.types import standard_artifacts
from tfx.utils import proto_utils

moto = pytest.importorskip("moto.server", reason="needs moto[s3], flask, flask-cors")
boto3 = pytest.importorskip("boto3", reason="comes with moto[s3]")


@pytest.fixture(scope="module")
def endpoint():
    """A store on this machine, which the environment names as AWS' tools want it."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = moto.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_REGION", "us-east-1")
        patch.setenv("AWS_ACCESS_KEY_ID", "key")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        yield f"http://{host}:{port}"
    server.stop()


class Bucket:
    """A bucket as AWS' own client sees it."""

    def __init__(self, endpoint):
        self.name = f"bucket-{uuid.uuid4()}"
        self.url = f"s3://{self.name}"
        self._client = boto3.client("s3", endpoint_url=endpoint)
        self._client.create_bucket(Bucket=self.name)

    def put(self, key, content):
        self._client.put_object(Bucket=self.name, Key=key, Body=content)

    def content(self, below=""):
        listing = self._client.list_objects_v2(Bucket=self.name, Prefix=below)
        return {
            entry["Key"].removeprefix(below): self._client.get_object(
                Bucket=self.name, Key=entry["Key"]
            )["Body"].read()
            for entry in listing.get("Contents", [])
        }


@pytest.fixture
def bucket(endpoint):
    return Bucket(endpoint)


@pytest.fixture
def forbidden(endpoint):
    """While it lasts, the store knows nobody's key."""

    def allow(actions):
        header = {"Content-Type": "text/plain"}
        url = f"{endpoint}/moto-api/reset-auth"
        urllib.request.urlopen(urllib.request.Request(url, actions, header)).close()

    allow(b"0")
    yield
    allow(b"inf")


# TFX's fileio


def test_what_is_written_is_what_another_client_reads(bucket):
    with fileio.open(f"{bucket.url}/a/text.txt", "w") as file:
        file.write("über\n")
    with fileio.open(f"{bucket.url}/a/bytes", "wb") as file:
        file.write(b"\0" * (11 << 20))  # in several parts
    with fileio.open(f"{bucket.url}/a/empty", "wb"):
        pass
    assert bucket.content() == {
        "a/text.txt": "über\n".encode(),
        "a/bytes": b"\0" * (11 << 20),
        "a/empty": b"",
    }


def test_what_another_client_wrote_is_read_listed_and_removed(bucket, tmp_path):
    for key in ("a/b/1.txt", "a/b/2.csv", "a/3.txt", "a/made/", "z"):
        bucket.put(key, key.encode())
    url = bucket.url
    with fileio.open(f"{url}/a/3.txt") as file:
        assert file.read() == "a/3.txt"
    assert fileio.listdir(f"{url}/a/") == ["3.txt", "b", "made"]
    assert fileio.glob(f"{url}/a/*.txt") == [f"{url}/a/3.txt"]
    assert fileio.glob(f"{url}/a/*/*.txt") == [f"{url}/a/b/1.txt"]
    assert fileio.glob(f"{url}/absent/*") == []
    assert list(fileio.walk(f"{url}/a")) == [
        (f"{url}/a", ["b", "made"], ["3.txt"]),
        (f"{url}/a/b", [], ["1.txt", "2.csv"]),
        (f"{url}/a/made", [], []),
    ]
    assert fileio.isdir(f"{url}/a/b")
    assert not fileio.isdir(f"{url}/z")
    assert fileio.exists(f"{url}/a/b")
    assert not fileio.exists(f"{url}/a/b/1")
    assert fileio.stat(f"{url}/z").length == 1
    fileio.copy(f"{url}/z", str(tmp_path / "z"))
    assert (tmp_path / "z").read_bytes() == b"z"
    fileio.remove(f"{url}/z")
    fileio.rmtree(f"{url}/a/b")
    assert {*bucket.content()} >= {"a/3.txt"}
    assert not {*bucket.content()} & {"z", "a/b/1.txt", "a/b/2.csv"}


def test_a_file_is_copied_and_renamed_over_another_only_where_that_is_wanted(bucket):
    bucket.put("one", b"1")
    bucket.put("two", b"2")
    with pytest.raises(OSError, match="two exists already"):
        fileio.rename(f"{bucket.url}/one", f"{bucket.url}/two")
    fileio.copy(f"{bucket.url}/one", f"{bucket.url}/three")
    fileio.rename(f"{bucket.url}/one", f"{bucket.url}/two", overwrite=True)
    assert bucket.content() == {"two": b"1", "three": b"1"}


@pytest.mark.parametrize(
    "use",
    [
        fileio.open,
        fileio.listdir,
        fileio.remove,
        fileio.stat,
        lambda path: fileio.copy(path, f"{path}.copy"),
        lambda path: fileio.rename(path, f"{path}.new"),
        lambda path: list(fileio.walk(path)),
    ],
)
def test_what_is_not_there_is_an_error_of_fileio(bucket, use):
    with pytest.raises(fileio.NotFoundError, match="absent"):
        use(f"{bucket.url}/absent")


# The corpus


@pytest.fixture
def ingest(run_example_gen):
    """Runs the executor on a corpus; returns its summary."""

    def run(source):
        return Summary.read(run_example_gen([source]).uri)

    return run


def test_a_corpus_is_read(bucket, ingest):
    texts = [f"Document {number} über\n" for number in range(60)]
    for number, text in enumerate(texts[:40]):
        bucket.put(f"corpus/texts/{number}.txt", text.encode())
    lines = "".join(json.dumps({"text": text}) + "\n" for text in texts[40:])
    bucket.put("corpus/more/rest.jsonl.gz", gzip.compress(lines.encode()))
    bucket.put("corpus/more/empty.txt", b"")
    summary = ingest(SourceSettings(path=f"{bucket.url}/corpus"))
    assert sum(summary.documents.values()) == 60
    written = [text.rstrip("\n") for text in texts[:40]] + texts[40:]
    assert sum(summary.bytes.values()) == sum(len(t.encode()) for t in written)
    assert summary.skipped == {f"{bucket.url}/corpus/more/empty.txt": "empty"}


@pytest.mark.parametrize(
    "path", ["", "/", "/a", "/a/", "/a/b/1.txt", "/a/**", "/*/?/*"]
)
def test_a_corpus_is_a_bucket_a_folder_a_file_or_a_pattern(bucket, path):
    bucket.put("a/b/1.txt", b"One.")
    bucket.put("a/b/", b"")  # as the consoles of stores make folders
    (file,) = files.find([SourceSettings(path=f"{bucket.url}{path}")]).files
    assert file.path == f"{bucket.url}/a/b/1.txt"


def test_a_table_is_read_where_it_lies(bucket):
    table = pa.table({"text": [f"Row {number}" for number in range(1000)]})
    content = io.BytesIO()
    pa.parquet.write_table(table, content)
    bucket.put("rows.parquet", content.getvalue())
    path = f"{bucket.url}/rows.parquet"
    documents = list(readers.read(path, SourceSettings(path=path)))
    assert [document.text for document in documents] == table["text"].to_pylist()


def test_the_newest_span_is_read_and_a_change_seen(bucket):
    source = SourceSettings(path=f"{bucket.url}/day-{{SPAN}}/*.txt")
    bucket.put("day-3/a.txt", b"Three.")
    bucket.put("day-3/deep/a.csv", b"Three.")
    fingerprints = {files.fingerprint([source])}
    bucket.put("day-12/a.txt", b"Twelve.")
    fingerprints.add(files.fingerprint([source]))
    time.sleep(1)  # what a store's times are rounded to
    bucket.put("day-12/a.txt", b"TWELVE.")
    fingerprints.add(files.fingerprint([source]))
    (file,) = files.find([source]).files
    assert file.path == f"{bucket.url}/day-12/a.txt"
    assert file.span.span == 12
    assert len(fingerprints) == 3


@pytest.mark.parametrize("path", ["absent", "absent/*.txt", "absent-{SPAN}/*.txt"])
def test_a_corpus_that_is_missing_is_named(bucket, path):
    with pytest.raises(InputError, match=r"no file matches the corpus 's3://.*absent"):
        files.find([SourceSettings(path=f"{bucket.url}/{path}")])


def test_a_bucket_that_is_missing_is_named(endpoint):
    with pytest.raises(InputError, match=r"no file matches .* 's3://no-such-bucket/x'"):
        files.find([SourceSettings(path="s3://no-such-bucket/x")])


def test_a_corpus_that_must_not_be_read_is_named(bucket, forbidden, monkeypatch):
    monkeypatch.setattr(readers, "_WAITS", ())
    url = f"{bucket.url}/texts"
    with pytest.raises(InputError, match=rf"'{url}' cannot be listed: .*ACCESS_DENIED"):
        files.find([SourceSettings(path=url)])
    with pytest.raises(BrokenOffError, match=rf"^{url}/a\.txt: .*ACCESS_DENIED"):
        list(readers.read(f"{url}/a.txt", SourceSettings(path=url)))


# The push


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "model"
    (folder / "variables").mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(b"graph")
    (folder / "variables" / "data").write_bytes(b"weights" * 1000)
    return folder


def test_a_pushed_version_holds_the_model_and_a_marker(bucket, model):
    texts = {"assets.extra/README.md": "# M"}
    first = object_stores.push(str(model), f"{bucket.url}/serving", texts)
    pushed = bucket.content(first.removeprefix(f"{bucket.url}/") + "/")
    assert json.loads(pushed.pop(Marker.FILE)) == {"files": 2}
    assert pushed == {
        "saved_model.pb": b"graph",
        "variables/data": b"weights" * 1000,
        "assets.extra/README.md": b"# M",
    }
    second = object_stores.push(str(model), f"{bucket.url}/serving")
    assert int(second.rpartition("/")[2]) > int(first.rpartition("/")[2])


def test_an_interrupted_push_has_neither_graph_nor_marker(bucket, model, monkeypatch):
    (model / "assets").mkdir()
    (model / "assets" / "vocabulary").write_bytes(b"words")
    copy = fileio.copy

    def interrupted(source, target):
        if source.endswith("data"):
            raise KeyboardInterrupt
        copy(source, target)

    monkeypatch.setattr(fileio, "copy", interrupted)
    with pytest.raises(KeyboardInterrupt):
        object_stores.push(str(model), f"{bucket.url}/serving")
    monkeypatch.setattr(fileio, "copy", copy)
    (name,) = bucket.content("serving/")
    assert name.endswith("/assets/vocabulary")
    version = object_stores.push(str(model), f"{bucket.url}/serving")
    assert int(version.rpartition("/")[2]) > int(name.partition("/")[0])


@pytest.fixture
def pusher(model, tmp_path):
    """Runs Pusher's executor; returns the artifact that says what was pushed."""

    def run(push_folder):
        trained = standard_artifacts.Model()
        trained.uri = str(tmp_path / "trained")
        model.rename(tmp_path / "trained" / "Format-Serving")
        pushed = standard_artifacts.PushedModel()
        pushed.uri = str(tmp_path / "pushed")
        destination = pusher_pb2.PushDestination()
        destination.filesystem.base_directory = push_folder
        PusherExecutor().Do(
            {"model": [trained]},
            {"pushed_model": [pushed]},
            {
                "push_destination": proto_utils.proto_to_json(destination),
                "custom_config": json.dumps({"card": None}),
            },
        )
        return pushed

    (tmp_path / "trained").mkdir()
    return run


def test_the_pusher_says_where_the_version_is(bucket, pusher):
    pushed = pusher(f"{bucket.url}/serving")
    version = pushed.get_string_custom_property("pushed_version")
    destination = pushed.get_string_custom_property("pushed_destination")
    assert destination == f"{bucket.url}/serving/{version}"
    assert f"serving/{version}/saved_model.pb" in bucket.content()


def test_a_push_that_is_not_allowed_is_one_line_that_names_the_folder(
    bucket, pusher, forbidden
):
    folder = f"{bucket.url}/serving"
    said = rf"{folder}.* cannot be used: .*ACCESS_DENIED"
    with pytest.raises(InputError, match=said):
        pusher(folder)
