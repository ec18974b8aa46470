"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import resource
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.files import PART_PREFIX, move_into_place, part_file, replacing, write_atomically


@pytest.fixture
def umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize(("data", "written"), [(b"\x00\xff", b"\x00\xff"), ("Grüße\n", "Grüße\n".encode())])
def test_bytes_and_text_are_written_as_they_are(tmp_path: Path, data: bytes | str, written: bytes) -> None:
    write_atomically(tmp_path / "file", data)
    assert (tmp_path / "file").read_bytes() == written
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_folder_in_a_files_place_is_named(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(OSError, match="directory") as refused:
        write_atomically(tmp_path / "taken", b"")
    assert refused.value.filename == str(tmp_path / "taken")
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_a_writer_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomically(path, "old")
    with pytest.raises(IsADirectoryError), replacing(path) as part:
        part.write_bytes(tmp_path.read_bytes())  # a folder cannot be read
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_what_cannot_be_written_is_named_as_the_user_knows_it(tmp_path: Path) -> None:
    path, before = tmp_path / "file", resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))  # as when the disk is full
    try:
        with pytest.raises(OSError, match=r"file'$"):
            write_atomically(path, "text")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError, match=r"folder'$"):
        write_atomically(tmp_path / "folder", "text")
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]


def test_a_reader_never_sees_a_part_of_a_file(tmp_path: Path) -> None:
    path, done, seen = tmp_path / "file", threading.Event(), set()
    contents = [str(n) * 100_000 for n in range(10)]
    write_atomically(path, contents[0])

    def read() -> None:
        while not done.is_set():
            seen.add(path.read_text())

    reader = threading.Thread(target=read)
    reader.start()
    for content in contents * 3:
        write_atomically(path, content)
    done.set()
    reader.join()
    assert seen <= set(contents)


def test_two_writers_of_one_file_do_not_disturb_each_other(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with replacing(path) as one, replacing(path) as other:
        one.write_text("one")
        other.write_text("other")
    assert path.read_text() == "one"  # the outer block ended last


@pytest.mark.usefixtures("umask")
def test_a_file_has_the_usual_permissions_and_a_private_one_only_its_owners(tmp_path: Path) -> None:
    write_atomically(tmp_path / "usual", "")
    write_atomically(tmp_path / "private", "", mode=0o600)
    assert (mode_of(tmp_path / "usual"), mode_of(tmp_path / "private")) == (0o644, 0o600)
    with replacing(tmp_path / "private", mode=0o600) as part:
        assert mode_of(part) == 0o600  # from the first moment on


def test_a_file_whose_name_is_known_only_in_the_end_is_kept_under_it(tmp_path: Path) -> None:
    with part_file(tmp_path) as part:
        assert part.name.startswith(PART_PREFIX)
        part.write_text("content")
        move_into_place(part, tmp_path / "name")
    assert [path.name for path in tmp_path.iterdir()] == ["name"]
