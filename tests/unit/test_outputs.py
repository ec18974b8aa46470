"""Names of output files: never an original, never two on one, never another file."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import click
import pytest

from producer.asset_ids import asset_ids
from producer.manifest import CSV_NAME, JSONL_NAME, Row, read_rows, write_manifest
from producer.outputs import Outputs, check_report, published_name, save
from producer.saving import write_rows
from producer.search import Search, Unread, find_images
from tasks.errors import Conflict, DiskUnavailable
from tasks.files import PART_PREFIX, part_file
from tasks.names import sha256_hex
from tests.photographs import crops

JPEG, OTHER = crops(2)
PNG = b"\x89PNG\r\n\x1a\n" + bytes(30)


def plan(out: Path, *images: Path, force: bool = False) -> Outputs:
    return Outputs.planned(find_images(map(str, images)).found, out, force=force)


@pytest.mark.parametrize(
    ("own", "suffix", "name"),
    [
        ("a.jpg", ".jpg", "a.jpg"), ("a.JPEG", ".jpg", "a.JPEG"), ("sub/a.jfif", ".jpg", "sub/a.jfif"),
        ("a.tif", ".png", "a.tif.png"), ("a", ".jpg", "a.jpg"), ("a.v2", ".webp", "a.v2.webp"),
    ],
)  # fmt: skip
def test_a_file_keeps_its_own_name_and_gets_a_suffix_where_its_format_is_another(
    own: str, suffix: str, name: str
) -> None:
    assert published_name(Path(own), suffix) == Path(name)


def test_names_that_differ_in_their_suffix_only_stay_two_files(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in ("a.jpg", "a.jpeg", "a"):
        (tmp_path / "in" / name).write_bytes(JPEG)
    (tmp_path / "in" / "a.png").write_bytes(PNG)
    with pytest.raises(click.UsageError, match=r"a\.jpg \(of .*in/a and .*in/a\.jpg\)"):
        plan(tmp_path / "out", tmp_path / "in")
    (tmp_path / "in" / "a").unlink()
    assert sorted(map(str, plan(tmp_path / "out", tmp_path / "in").names)) == ["a.jpeg", "a.jpg", "a.png"]


def test_two_images_of_one_name_are_a_clash_that_is_named(tmp_path: Path) -> None:
    paths = [tmp_path / folder / "IMG_0001.jpg" for folder in ("one", "two")]
    for path in paths:
        path.parent.mkdir()
        path.write_bytes(JPEG)
    with pytest.raises(click.UsageError, match=r"one/IMG_0001\.jpg and .*two/IMG_0001\.jpg"):
        plan(tmp_path / "out", *paths)
    assert len(plan(tmp_path / "out", *(path.parent for path in paths)).names) == 2


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("link", ["", "symbolic", "hard"])
def test_an_original_is_never_written_onto_whatever_path_leads_to_it(tmp_path: Path, link: str, force: bool) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "a.jpg").write_bytes(JPEG)
    out = photos if not link else tmp_path / "out"
    if link == "symbolic":
        out.symlink_to(photos)
    elif link == "hard":
        out.mkdir()
        (out / "a.jpg").hardlink_to(photos / "a.jpg")
    with pytest.raises(click.UsageError, match="onto an original"):
        plan(out, photos, force=force)


def test_another_file_is_replaced_with_force_only(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "in" / "a.jpg").write_bytes(JPEG)
    (tmp_path / "out" / "a.jpg").write_bytes(OTHER)
    with pytest.raises(click.UsageError, match="exists already"):
        plan(tmp_path / "out", tmp_path / "in")
    plan(tmp_path / "out", tmp_path / "in", force=True).save(0, JPEG, ".jpg")
    assert (tmp_path / "out" / "a.jpg").read_bytes() == JPEG


def test_the_output_of_an_earlier_run_on_the_same_image_is_not_another_file(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "in" / "a.jpg").write_bytes(JPEG)
    (tmp_path / "out" / "a.jpg").write_bytes(OTHER)
    earlier = Row("x", "a.jpg", "activated", protected_file="a.jpg", source_sha256=sha256_hex(JPEG))
    write_manifest(tmp_path / "out", [earlier])
    planned = plan(tmp_path / "out", tmp_path / "in")
    planned.save(0, OTHER, ".jpg")
    with pytest.raises(Conflict, match="--force"):
        planned.save(0, PNG, ".jpg")
    (tmp_path / "in" / "a.jpg").write_bytes(OTHER)
    with pytest.raises(click.UsageError, match="exists already"):
        plan(tmp_path / "out", tmp_path / "in")


def test_what_a_killed_command_left_half_written_is_deleted_an_hour_later(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "in" / "a.jpg").write_bytes(JPEG)
    with part_file(tmp_path / "out") as new, part_file(tmp_path / "out") as old:
        (other := tmp_path / "out" / f"{PART_PREFIX}mine").touch()
        for path in (old, other):
            os.utime(path, (0, 0))
        plan(tmp_path / "out", tmp_path / "in")
        assert {*(tmp_path / "out").iterdir()} == {new, other}


def test_a_manifest_that_is_none_of_ours_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "in.jpg").write_bytes(JPEG)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / CSV_NAME).write_text("mine")
    with pytest.raises(click.UsageError, match=r"manifest\.csv"):
        plan(tmp_path / "out", tmp_path / "in.jpg")


def test_manifests_without_a_row_are_what_a_run_left_that_ended_before_its_first_result(tmp_path: Path) -> None:
    (tmp_path / "in.jpg").write_bytes(JPEG)
    out = tmp_path / "out"
    out.mkdir()
    write_manifest(out, [])
    assert (out / JSONL_NAME).read_bytes() == b""
    plan(out, tmp_path / "in.jpg")
    (out / CSV_NAME).unlink()  # as when it was killed between the two
    plan(out, tmp_path / "in.jpg")
    (out / JSONL_NAME).write_text("\n")
    with pytest.raises(click.UsageError, match=r"manifest\.jsonl"):
        plan(out, tmp_path / "in.jpg")


def test_a_run_without_a_result_writes_no_manifest(tmp_path: Path) -> None:
    assert not write_rows([], Search(), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert write_rows([], Search(unread=[Unread("a.jpg", "it is locked", is_folder=False)]), tmp_path / "out")
    assert [(row.source, row.status) for row in read_rows(tmp_path / "out")] == [("a.jpg", "failed")]


def test_a_file_that_another_process_replaced_is_not_taken_for_one_of_another_image(tmp_path: Path) -> None:
    outputs = Outputs(tmp_path, [Path("a.jpg"), Path("b.jpg")])
    outputs.save(0, JPEG, ".jpg")
    (tmp_path / "a.jpg").rename(tmp_path / "b.jpg")  # the number of the first file is the second's now
    (tmp_path / "b.jpg").write_bytes(OTHER)
    save(tmp_path / "a.jpg", JPEG, force=False)
    assert outputs.save(1, OTHER, ".jpg").read_bytes() == OTHER


def test_two_images_are_never_one_file_also_where_the_folder_takes_two_names_for_one(tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / "one").mkdir(parents=True)
    (out / "two").symlink_to("one")
    outputs = Outputs(out, [Path("one/a.jpg"), Path("two/a.jpg")], force=True)
    outputs.save(0, JPEG, ".jpg")
    with pytest.raises(Conflict, match="another of these images"):
        outputs.save(1, OTHER, ".jpg")
    assert (out / "one" / "a.jpg").read_bytes() == JPEG
    outputs.save(0, JPEG, ".jpg")


def test_a_folder_or_report_that_cannot_be_written_is_refused_before_the_first_job(tmp_path: Path) -> None:
    photo, locked = tmp_path / "a.jpg", tmp_path / "locked"
    photo.write_bytes(JPEG)
    found = find_images([str(photo)]).found
    (gone := tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for folder in (photo, photo / "deep", gone, gone / "deep"):
        with pytest.raises(click.UsageError, match="is no folder"):
            plan(folder, photo)
        with pytest.raises(click.UsageError, match="is no folder"):
            check_report(folder / "a.csv", found, force=False)
    locked.mkdir(mode=0o500)
    if not os.access(locked, os.W_OK):  # root may write everywhere
        with pytest.raises(click.UsageError, match="no permission"):
            plan(locked / "deep", photo)
    check_report(tmp_path / "new" / "a.csv", found, force=False)


@pytest.mark.parametrize("force", [False, True])
def test_a_folder_in_a_protected_files_place_is_refused_before_the_first_job(tmp_path: Path, force: bool) -> None:
    (photo := tmp_path / "a.jpg").write_bytes(JPEG)
    (tmp_path / "out" / "a.jpg").mkdir(parents=True)
    with pytest.raises(click.UsageError, match=r"a\.jpg: is a folder"):
        plan(tmp_path / "out", photo, force=force)


def test_what_cannot_be_written_is_named_as_the_disks_fault(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DiskUnavailable, match="file"):
        save(tmp_path / "file" / "a.jpg", JPEG, force=True)


def test_manifests_of_several_runs_are_one_and_a_source_has_one_row(tmp_path: Path) -> None:
    write_manifest(tmp_path, [Row("a.jpg", "a.jpg", "failed"), Row("=b.jpg", "=b.jpg", "activated", psnr_db=40.5)])
    write_manifest(tmp_path, [Row("a.jpg", "a.jpg", "passive", metadata_lost=("thumbnail", "C2PA"))])
    assert [(row.source, row.status) for row in read_rows(tmp_path)] == [("=b.jpg", "activated"), ("a.jpg", "passive")]
    head, *lines = (tmp_path / CSV_NAME).read_text().splitlines()
    assert head.startswith("source,name,status,asset_id,protected_file,psnr_db,ssim,verified,job_id,error_code,")
    assert "thumbnail | C2PA" in lines[1]


def test_asset_ids_from_names_and_paths_never_make_two_images_one(tmp_path: Path) -> None:
    for folder, data in (("one", JPEG), ("two", OTHER)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.jpg").write_bytes(data)
    found = find_images([str(tmp_path)]).found
    assert sorted(asset_ids(found, "path", None).values()) == ["one/a.jpg", "two/a.jpg"]
    assert asset_ids(found, "digest", None) == {}
    with pytest.raises(click.UsageError, match="--asset-id-from path"):
        asset_ids(found, "name", None)
    (tmp_path / "two" / "a.jpg").write_bytes(JPEG)
    assert set(asset_ids(found, "name", None).values()) == {"a.jpg"}
    with pytest.raises(click.UsageError, match="one image"):
        asset_ids(found, "digest", "mine")


def test_paths_that_differ_only_in_how_letters_are_composed_are_not_advised_to_be_ids(tmp_path: Path) -> None:
    for name, data in ((unicodedata.normalize("NFC", "é"), JPEG), (unicodedata.normalize("NFD", "é"), OTHER)):
        (tmp_path / f"{name}.jpg").write_bytes(data)
    with pytest.raises(click.UsageError, match=r"rename one, or use --asset-id-from digest\.$"):
        asset_ids(find_images([str(tmp_path)]).found, "path", None)
