"""Folders named by a scheme, for what knows paths alone."""

from __future__ import annotations

import os
import uuid

import pytest
from langzoo.components import storage
from langzoo.components.errors import InputError
from tfx.dsl.io import fileio


@pytest.fixture(params=["path", "address"])
def folder(request, tmp_path):
    """A folder that is not there yet."""
    if request.param == "path":
        return str(tmp_path / "folder")
    return f"ram://{uuid.uuid4()}/folder"


def write(folder):
    with storage.written_here(folder) as here:
        os.makedirs(os.path.join(here, "deep"))
        with open(os.path.join(here, "deep", "file"), "w") as file:
            file.write("text")


def test_what_is_written_here_is_there(folder):
    write(folder)
    assert storage.read_text(f"{folder}/deep/file") == "text"


def test_what_is_there_is_read_here(folder):
    write(folder)
    with storage.read_here(folder) as here:
        assert storage.is_remote(folder) != (here == folder)
        with open(os.path.join(here, "deep", "file")) as file:
            assert file.read() == "text"
    assert os.path.exists(here) != storage.is_remote(folder)


def test_of_a_writer_that_fails_an_address_has_nothing():
    address = f"ram://{uuid.uuid4()}/folder"

    def fail():
        with storage.written_here(address) as here:
            with open(os.path.join(here, "file"), "w") as file:
                file.write("half")
            raise OSError("the disk is full")

    with pytest.raises(OSError, match="the disk is full"):
        fail()
    assert not fileio.exists(address)


def test_a_readers_error_is_not_the_addresss():
    address = f"ram://{uuid.uuid4()}/folder"
    write(address)
    with pytest.raises(OSError, match="the disk is full"), storage.read_here(address):
        raise OSError("the disk is full")


def test_an_address_without_a_folder_is_named():
    with (
        pytest.raises(InputError, match="nofs://a/b: no filesystem is known"),
        storage.read_here("nofs://a/b"),
    ):
        pass
