"""The push: whole or not at all, and never twice under one number."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid

import pytest
from langzoo.components import storage
from langzoo.components.errors import InputError
from langzoo.components.evaluator.records import Baseline, Verdict
from langzoo.components.push_folder import object_stores, versions
from langzoo.components.push_folder.push_folder import Kept, PushFolder
from langzoo.components.push_folder.records import Marker, Source
from langzoo.components.push_folder.versions import push
from langzoo.components.pusher.executor import Executor
from tfx.components.evaluator import constants
from tfx.proto import pusher_pb2
from tfx.types import standard_artifacts
from tfx.utils import proto_utils


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "model"
    (folder / "variables").mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(b"graph")
    (folder / "variables" / "data").write_bytes(os.urandom(1 << 20))
    return folder


def content(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_a_version_holds_the_whole_model(model, tmp_path):
    version = push(str(model), str(tmp_path / "serving"))
    assert content(version) == content(model)
    assert abs(int(version.name) - time.time()) < 60
    assert version.stat().st_mode & 0o777 == 0o755


def test_a_version_holds_its_model_card(model, tmp_path):
    texts = {"assets.extra/README.md": "# Model\n"}
    version = push(str(model), str(tmp_path / "serving"), texts)
    card = (version / "assets.extra" / "README.md").read_text()
    assert card == "# Model\n"
    assert content(version).items() >= content(model).items()


def test_pushes_in_one_second_give_as_many_versions(model, tmp_path):
    serving = str(tmp_path / "serving")
    versions = [push(str(model), serving) for _ in range(4)]
    assert len(set(versions)) == 4
    assert versions == sorted(versions, key=lambda version: int(version.name))


def test_simultaneous_pushes_give_as_many_versions(model, tmp_path):
    serving = tmp_path / "serving"
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        pool.starmap(push, [(str(model), str(serving))] * 6)
    assert sum(path.name.isdecimal() for path in serving.iterdir()) == 6
    assert all(content(path) == content(model) for path in serving.iterdir())


def test_a_killed_push_leaves_no_version_and_the_next_cleans_up(model, tmp_path):
    serving = tmp_path / "serving"
    code = (
        "import os, signal, sys; from langzoo.components.push_folder import versions; "
        "versions._rename_to_free_version = "
        "lambda *_: os.kill(os.getpid(), signal.SIGKILL); "
        "versions.push(*sys.argv[1:])"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(model), str(serving)])
    assert killed.returncode == -signal.SIGKILL
    assert not any(path.name.isdecimal() for path in serving.iterdir())
    version = push(str(model), str(serving))
    assert list(serving.iterdir()) == [version]


def test_what_another_host_is_writing_stays_until_it_is_old(
    model, tmp_path, monkeypatch
):
    serving = tmp_path / "serving"
    # Of a host or container of the same name, whose process no one sees here.
    gone = subprocess.Popen(["true"])
    gone.wait()
    theirs = serving / f".push-{uuid.uuid4()}-4026531836-{gone.pid}-abcd"
    (theirs / "variables").mkdir(parents=True)
    shutil.copy2(model / "saved_model.pb", theirs)
    os.utime(theirs / "saved_model.pb", (0, 0))
    push(str(model), str(serving))
    assert theirs.exists()
    monkeypatch.setattr(versions, "_ABANDONED_SECONDS", -1)
    push(str(model), str(serving))
    assert not theirs.exists()


def test_a_folder_is_made_for_others_to_pass(tmp_path):
    before = os.umask(0o077)
    try:
        storage.make_passable(tmp_path / "runs" / "demo")
        storage.make_passable(tmp_path / "runs" / "demo")
    finally:
        os.umask(before)
    for path in (tmp_path / "runs", tmp_path / "runs" / "demo"):
        assert path.stat().st_mode & 0o777 == 0o711
    assert tmp_path.stat().st_mode & 0o077 == 0  # It was there.


def test_a_private_umask_still_pushes_what_the_server_can_read(model, tmp_path):
    (tmp_path / "runs").mkdir(mode=0o755)
    for path in (model, *model.rglob("*")):
        path.chmod(0o700 if path.is_dir() else 0o600)
    before = os.umask(0o077)
    try:
        texts = {"assets.extra/README.md": "# Model\n"}
        version = push(str(model), str(tmp_path / "runs" / "a" / "serving"), texts)
    finally:
        os.umask(before)
    for path in (version.parent, version, *version.rglob("*")):
        wanted = 0o755 if path.is_dir() else 0o644
        assert path.stat().st_mode & 0o777 == wanted, path
    assert (tmp_path / "runs" / "a").stat().st_mode & 0o777 == 0o711


def test_a_push_folder_that_is_a_file_is_an_error_that_names_it(model, tmp_path):
    target = tmp_path / "serving"
    target.write_text("")
    with pytest.raises(InputError, match=f"{target} cannot be written"):
        push(str(model), str(target))


@pytest.fixture(params=["here", "ram"])
def serving(request, tmp_path):
    """A push folder: of this machine, or as an object store is."""
    here = request.param == "here"
    return PushFolder(str(tmp_path / "serving") if here else f"ram://{uuid.uuid4()}/s")


@pytest.fixture
def three(model, serving):
    """The same with three versions, told apart by their models' names."""
    for name in ("a", "b", "c"):
        serving.push(str(model), {Source.FILE: Source(model=name).dump()})
    return serving


def test_going_back_pushes_the_earlier_version_under_the_highest_number(three):
    first, second, third = three.numbers
    live = three.roll_back()
    assert (live.version, live.model) == (second, "b")
    assert (live.number, live.taken_back) == (three.numbers[-1], {"c": third})
    # From there one goes on back, not forth to what one came from.
    live = three.roll_back()
    assert (live.version, live.taken_back) == (first, {"b": second, "c": third})
    live = three.roll_back(third)
    assert (live.model, live.taken_back) == ("c", {})
    assert three.numbers[:3] == [first, second, third]
    assert len(three.numbers) == 6
    graph = storage.read_text(f"{live.folder}/saved_model.pb")
    assert graph == "graph"


def test_a_version_that_was_taken_back_is_not_gone_back_to(model, three):
    first, _, _ = three.numbers
    three.roll_back(first)
    three.push(str(model))
    assert three.live_rollback is None
    assert three.roll_back().version == first


def test_a_version_that_is_not_there_or_is_live_is_refused(three, tmp_path):
    first, _, third = three.numbers
    with pytest.raises(InputError, match=f"no version 7 in .*there is {first}"):
        three.roll_back(7)
    with pytest.raises(InputError, match=f"{third} is what is served already"):
        three.roll_back(third)
    three.roll_back(first)
    with pytest.raises(InputError, match=f"no version in {three.path} before {first}"):
        three.roll_back()
    with pytest.raises(InputError, match="there is no version"):
        PushFolder(str(tmp_path / "nothing")).roll_back()


def test_a_version_whose_folder_is_gone_is_restored_from_what_is_kept(three, model):
    first, second, third = three.numbers
    object_stores.fileio.rmtree(three.folder(second))
    absent = f"{model}-absent"
    kept = {
        second: Kept("b", (absent,), three.path),
        third + 1: Kept("d", (), three.path),
        third + 2: Kept("e", (), "elsewhere"),
    }
    with pytest.raises(InputError, match=f"{second} is gone .*{absent}.*: there is"):
        three.roll_back(second, kept)
    kept[second] = Kept("b", (absent, str(model)), three.path)
    live = three.roll_back(second, kept)
    assert (live.version, live.model) == (second, "b")
    assert live.taken_back == {"c": third, "d": third + 1}
    assert storage.read_text(f"{live.folder}/saved_model.pb") == "graph"
    three.roll_back(first)
    # Its own folder is gone, but not that which a rollback has made.
    assert three.roll_back(second).model == "b"


def test_a_push_after_going_back_is_what_is_served(model, three):
    three.roll_back()
    version = three.push(str(model))
    assert version == three.folder(three.numbers[-1])
    assert three.live_rollback is None


def pushed(model, folder, baseline, tmp_path):
    """Pushes a blessed model that was compared with a baseline; the version, or ""."""
    blessing = standard_artifacts.ModelBlessing()
    blessing.uri = str(tmp_path / "blessing")
    blessing.set_int_custom_property(
        constants.ARTIFACT_PROPERTY_BLESSED_KEY, constants.BLESSED_VALUE
    )
    os.makedirs(blessing.uri, exist_ok=True)
    verdict = Verdict(blessed=True, baseline=baseline)
    verdict.write(blessing.uri)
    candidate = standard_artifacts.Model()
    candidate.uri = str(tmp_path / "candidate")
    shutil.copytree(model, f"{candidate.uri}/Format-Serving", dirs_exist_ok=True)
    result = standard_artifacts.PushedModel()
    result.uri = str(tmp_path / "pushed")
    destination = pusher_pb2.PushDestination(
        filesystem=pusher_pb2.PushDestination.Filesystem(base_directory=folder.path)
    )
    Executor().Do(
        {"model": [candidate], "model_blessing": [blessing]},
        {"pushed_model": [result]},
        {
            "push_destination": proto_utils.proto_to_json(destination),
            "custom_config": json.dumps({"card": None}),
        },
    )
    return result.get_string_custom_property("pushed_destination")


def test_a_model_that_was_judged_before_a_rollback_is_not_pushed(
    model, three, tmp_path
):
    live = three.roll_back()
    for baseline in (None, Baseline(model="c"), Baseline(model="x", version=7)):
        with pytest.raises(InputError, match=f"rollback to version {live.version} was"):
            pushed(model, three, baseline, tmp_path)
    assert three.numbers[-1] == live.number
    judged = Baseline(model=live.folder, version=live.number, again=live.version)
    version = pushed(model, three, judged, tmp_path)
    assert version == three.folder(three.numbers[-1])
    assert three.model(three.numbers[-1]) == str(tmp_path / "candidate")


def test_a_push_folder_of_an_unknown_scheme_is_an_error_that_names_it():
    with pytest.raises(InputError, match=r"foo://models: no .* scheme foo://.*gs://"):
        PushFolder("foo://models").require_writable()


def test_a_push_folder_in_an_object_store_is_left_as_it_was_by_a_look_at_it():
    folder = PushFolder(f"ram://{uuid.uuid4()}/serving")
    folder.require_writable()
    assert storage.names(folder.path) == []


def test_on_an_object_store_the_graph_comes_last_and_then_the_marker(
    model, monkeypatch
):
    copied = []
    copy = object_stores.fileio.copy
    monkeypatch.setattr(
        object_stores.fileio, "copy", lambda *a: copied.append(a[1]) or copy(*a)
    )
    # A filesystem of TensorFlow's that is, like an object store, none of the system's.
    folder = f"ram://{uuid.uuid4()}/serving"
    first = object_stores.push(str(model), folder, {"assets.extra/README.md": "# M"})
    assert [path.removeprefix(f"{first}/") for path in copied] == [
        "variables/data",
        "saved_model.pb",
    ]
    assert Marker.read(first) == Marker(files=2)
    with object_stores.fileio.open(f"{first}/variables/data", "rb") as file:
        assert file.read() == (model / "variables" / "data").read_bytes()
    second = object_stores.push(str(model), folder)
    assert int(second.rpartition("/")[2]) > int(first.rpartition("/")[2])
