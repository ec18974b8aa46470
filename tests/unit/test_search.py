"""Which files of a folder are images, and that nothing is passed over in silence."""

from __future__ import annotations

import os
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from producer.manifest import Row, write_manifest
from producer.search import Search, find_images, summary
from tasks.formats import FORMATS, HEAD_BYTES, format_of, kind_of
from tasks.names import sha256_hex
from tests.photographs import crops
from workers.images.headers import recognise

JPEG = crops(1)[0]
PNG = b"\x89PNG\r\n\x1a\n" + bytes(30)


def files(folder: Path, **contents: bytes) -> None:
    for name, data in contents.items():
        path = folder / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def names(search: Search) -> list[str]:
    return [found.relative.as_posix() for found in search.found]


def reasons(search: Search, folder: Path) -> dict[str, str]:
    return {str(Path(one.name).relative_to(folder)): one.reason for one in search.skipped}


def test_files_are_images_by_their_content_whatever_their_names(tmp_path: Path) -> None:
    files(tmp_path, a_jfif=JPEG, b_jpe=JPEG, c=JPEG, d_txt=PNG, e_JPG=JPEG, sub__f_webp=b"RIFF0000WEBPVP8 ")
    search = find_images([str(tmp_path)])
    assert names(search) == ["a.jfif", "b.jpe", "c", "d.txt", "e.JPG", "sub/f.webp"]
    assert summary(search) == ""


def test_a_damaged_file_that_is_named_like_an_image_is_taken_so_that_its_failure_is_named(tmp_path: Path) -> None:
    files(tmp_path, empty_jpg=b"", page_png=b"<html>404</html>")
    assert names(find_images([str(tmp_path)])) == ["empty.jpg", "page.png"]


def test_what_is_left_out_is_counted_with_its_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files(tmp_path, a_pdf=b"%PDF-1.7", b_txt=b"notes \xc3\xa9", c_mov=b"\0\0\0\x14ftypqt  ", d=b"", e_json=b'{"a": 1}')
    files(tmp_path, f_bin=bytes(range(256)), g_zip=b"PK\x03\x04")
    (tmp_path / ".DS_Store").touch()
    (tmp_path / "._a.jpg").write_bytes(JPEG)
    (tmp_path / "dead.jpg").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe.jpg")
    with socket.socket(socket.AF_UNIX) as listening:
        monkeypatch.chdir(tmp_path)
        listening.bind("socket")  # where the whole path may be longer than the 107 bytes that fit
    search = find_images([str(tmp_path)])
    assert search.found == []
    assert reasons(search, tmp_path) == {
        "a.pdf": "PDF", "b.txt": "text", "c.mov": "video", "d": "empty", "e.json": "JSON", "f.bin": "unknown",
        "g.zip": "archive", ".DS_Store": "hidden", "._a.jpg": "hidden", "dead.jpg": "dead link",
        "pipe.jpg": "no regular file", "socket": "no regular file",
    }  # fmt: skip
    assert summary(search).startswith("12 skipped: 2 hidden, 2 no regular file, 1 PDF")


def test_linked_folders_are_followed_once_and_cycles_end(tmp_path: Path) -> None:
    files(tmp_path, outside__a_jpg=JPEG, photos__b_jpg=JPEG)
    photos = tmp_path / "photos"
    (photos / "linked").symlink_to(tmp_path / "outside")
    (photos / "linked again").symlink_to(tmp_path / "outside")
    (photos / "cycle").symlink_to(photos)
    (photos / "itself").symlink_to(photos / "itself")
    search = find_images([str(photos)])
    assert names(search) == ["b.jpg", "linked/a.jpg"]
    assert sorted(reasons(search, photos)) == ["cycle", "itself", "linked again"]


def test_no_folder_is_too_deep(tmp_path: Path) -> None:
    folders = [tmp_path]
    for _ in range(sys.getrecursionlimit() + 50):
        folders.append(folders[-1] / "d")
        folders[-1].mkdir()
    image = folders[-1] / "a.jpg"
    image.write_bytes(JPEG)
    search = find_images([str(tmp_path)])
    image.unlink()
    for folder in reversed(folders[1:]):  # pytest could not: it removes folders by recursion
        folder.rmdir()
    assert len(names(search)) == 1
    assert not search.skipped


def test_a_name_that_is_no_utf8_is_an_image_like_any_other(tmp_path: Path) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe.jpg")).write_bytes(JPEG)
    assert len(find_images([str(tmp_path)]).found) == 1


def test_one_path_named_twice_is_one_image(tmp_path: Path) -> None:
    files(tmp_path, a_jpg=JPEG)
    search = find_images([str(tmp_path), str(tmp_path / "a.jpg"), str(tmp_path)])
    assert (len(search.found), [one.reason for one in search.skipped]) == (
        1,
        ["named twice", "folder that was read already"],
    )


def test_standard_input_named_twice_is_one_image() -> None:
    search = find_images(["-", "-"], JPEG)
    assert ([one.source for one in search.found], summary(search)) == ([JPEG], "1 skipped: 1 named twice")


def test_several_folders_are_kept_apart_by_their_names(tmp_path: Path) -> None:
    files(tmp_path, one__a_jpg=JPEG, two__a_jpg=JPEG)
    assert names(find_images([str(tmp_path / "one"), str(tmp_path / "two")])) == ["one/a.jpg", "two/a.jpg"]


@contextmanager
def without_privileges() -> Iterator[None]:
    """Root can read everything; its tests act as another user."""
    before = os.geteuid()
    try:
        if before == 0:
            os.seteuid(65534)
        yield
    finally:
        os.seteuid(before)


def test_a_folder_and_a_file_that_cannot_be_read_are_named() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files(folder, closed__a_jpg=JPEG, b_jpg=JPEG, c_jpg=JPEG)
        folder.chmod(0o755)
        (folder / "closed").chmod(0)
        (folder / "b.jpg").chmod(0)
        with without_privileges():
            search = find_images([name])
        (folder / "closed").chmod(0o700)
    assert names(search) == ["c.jpg"]
    assert summary(search) == "1 folder cannot be read; 1 file cannot be read"


def test_excluded_folders_are_left_out_wherever_a_link_leads_to_them(tmp_path: Path) -> None:
    files(tmp_path, a_jpg=JPEG, out__b_jpg=JPEG)
    (tmp_path / "link").symlink_to("out")
    search = find_images([str(tmp_path)], excluded={tmp_path / "out": "folder of --out"})
    assert (names(search), reasons(search, tmp_path)) == (
        ["a.jpg"],
        {"link": "folder of --out", "out": "folder of --out"},
    )


def test_protected_files_that_a_manifest_lists_are_left_out_wherever_they_were_copied_to(tmp_path: Path) -> None:
    protected = JPEG + b"protected"
    files(tmp_path, a_jpg=JPEG, done__a_jpg=protected, elsewhere__copy_jpg=protected)
    row = Row("a.jpg", "a.jpg", "activated", protected_file="a.jpg", source_sha256=sha256_hex(JPEG))
    listed = {"protected_sha256": sha256_hex(protected), "protected_bytes": len(protected)}
    write_manifest(tmp_path / "done", [Row(**(vars(row) | listed))])
    search = find_images([str(tmp_path)], without_protected=True)
    assert names(search) == ["a.jpg"]
    assert reasons(search, tmp_path)["elsewhere/copy.jpg"] == "protected file"
    assert find_images([str(tmp_path / "done" / "a.jpg")], without_protected=True).found == []
    assert len(find_images([str(tmp_path)]).found) == 3


def test_a_manifest_that_is_none_of_ours_is_no_manifest(tmp_path: Path) -> None:
    (tmp_path / "manifest.jsonl").write_bytes(b'\xff\n[1]\n{"source": 1}\n{"source": "a", "status": []}\nnull\n')
    files(tmp_path, a_jpg=JPEG)
    assert names(find_images([str(tmp_path)], without_protected=True)) == ["a.jpg"]


def test_producers_and_workers_recognise_the_same_formats() -> None:
    heads = {
        "JPEG": JPEG, "PNG": PNG, "WEBP": b"RIFF0000WEBPVP8 ", "TIFF": b"II*\0" + bytes(20),
        "GIF": b"GIF89a" + bytes(9),
        "AVIF": b"\0\0\0\x1cftypavif\0\0\0\0avifmif1miaf", "HEIC": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
    }  # fmt: skip
    assert {kind.name.upper() for kind in FORMATS} == heads.keys()
    for name, head in heads.items():
        known = format_of(head)
        assert known is not None
        assert (known.name.upper(), recognise(head)) == (name, name)


def test_a_character_that_is_cut_at_the_end_of_what_was_read_does_not_make_a_text_unknown() -> None:
    head = ("a" + "é" * HEAD_BYTES).encode()[:HEAD_BYTES]
    assert (head[-1:], kind_of(head), kind_of(b"\xe9t\xe9")) == (b"\xc3", "text", "unknown")
