"""Folders as people have them, through the real command and a real worker."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from tests.photographs import crops
from tests.stack import WorkerProcess, aii


@pytest.fixture(autouse=True)
def worker(shared_worker: WorkerProcess, settings: object) -> WorkerProcess:
    return shared_worker


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Images under every kind of name, and what lies beside them."""
    folder = tmp_path / "photos"
    (folder / "sub").mkdir(parents=True)
    for name, data in zip(("a.jpg", "a.jpeg", "IMG_1", "c.JPG", "sub/a.jpg"), crops(5), strict=True):
        (folder / name).write_bytes(data)
    (folder / "broken.jpg").write_bytes(crops(1)[0][:900])
    (folder / "notes.txt").write_text("notes")
    (folder / ".DS_Store").touch()
    return folder


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_every_image_gets_a_file_and_a_row_and_nothing_is_passed_over(
    stack_environment: dict[str, str], photos: Path
) -> None:
    out = photos / "protected"
    before = {path: path.read_bytes() for path in photos.rglob("*") if path.is_file()}
    first = aii(stack_environment, "activate", str(photos), "--out", str(out), "--asset-id-from", "path")
    assert first.returncode == 1, first.stderr
    assert "5 of 6 images done, 1 failed." in first.stderr
    assert "2 skipped: 1 hidden, 1 text." in first.stderr
    assert {path: path.read_bytes() for path in before} == before
    written = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    assert written == {"a.jpg", "a.jpeg", "IMG_1.jpg", "c.JPG", "sub/a.jpg", "manifest.csv", "manifest.jsonl"}

    rows = {row["source"]: row for row in lines((out / "manifest.jsonl").read_text())}
    assert len(rows) == 8
    row = rows[str(photos / "sub" / "a.jpg")]
    assert (row["asset_id"], row["protected_file"], row["status"]) == ("sub/a.jpg", "sub/a.jpg", "activated")
    assert (row["psnr_db"] > 35, 0.9 < row["ssim"] <= 1, row["verified"]) == (True, True, True)
    assert rows[str(photos / "broken.jpg")]["error_code"] == "truncated"
    assert rows[str(photos / "notes.txt")]["message"] == "text"
    with (out / "manifest.csv").open(newline="") as file:
        assert [dict(row)["job_id"] for row in csv.DictReader(file)] == [row["job_id"] for row in rows.values()]

    # Again: what was protected is no original, and its own files may stay.
    again = aii(stack_environment, "activate", str(photos), "--out", str(out), "--asset-id-from", "path", "--json")
    assert again.returncode == 1, again.stderr
    told = {line["image"]: line for line in lines(again.stdout)}
    assert told[str(photos / "IMG_1")]["saved"] == str(out / "IMG_1.jpg")
    assert told[str(photos / "IMG_1")]["new"] is False
    assert told[str(out)] == {"image": str(out), "status": "skipped", "reason": "folder of --out"}


def test_protected_files_are_not_protected_again_from_another_folder(
    stack_environment: dict[str, str], photos: Path, tmp_path: Path
) -> None:
    assert aii(stack_environment, "activate", str(photos / "sub"), "--out", str(photos / "done")).returncode == 0
    second = aii(stack_environment, "activate", str(photos), "--out", str(tmp_path / "other"), "--json")
    told = {line["image"]: line for line in lines(second.stdout)}
    assert told[str(photos / "done" / "a.jpg")]["reason"] == "protected file"


def test_protected_files_without_their_manifest_are_known_to_the_service(
    stack_environment: dict[str, str], photos: Path, tmp_path: Path
) -> None:
    out, loose = tmp_path / "out", tmp_path / "loose"
    assert aii(stack_environment, "activate", str(photos / "sub"), "--out", str(out)).returncode == 0
    loose.mkdir()
    (out / "a.jpg").rename(loose / "renamed.jpg")
    (loose / "c.jpg").write_bytes((photos / "c.JPG").read_bytes())
    run = aii(stack_environment, "activate", str(loose), "--out", str(tmp_path / "again"), "--json")
    assert run.returncode == 0, run.stderr
    told = {Path(line["image"]).name: line for line in lines(run.stdout)}
    assert (told["renamed.jpg"]["status"], told["renamed.jpg"]["reason"]) == ("skipped", "protected file")
    assert "protected file of asset" in told["renamed.jpg"]["message"]
    assert sorted(path.name for path in (tmp_path / "again").iterdir()) == ["c.jpg", "manifest.csv", "manifest.jsonl"]


def test_a_file_that_cannot_be_saved_is_that_images_failure(
    stack_environment: dict[str, str], photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "sub").touch()
    run = aii(stack_environment, "activate", str(photos), "--out", str(out), "--json")
    told = {line["image"]: line for line in lines(run.stdout)}
    assert (run.returncode, told[str(photos / "sub" / "a.jpg")]["code"]) == (1, "disk_unavailable")
    assert (out / "a.jpeg").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["photos", "--out", "photos"], "is a folder of originals"),
        (["photos/a.jpg", "--out", "photos"], "onto an original"),
        (["photos/a.jpg", "photos/sub/a.jpg", "--out", "new"], "two protected files"),
        (["photos", "--asset-id-from", "name"], "would both be the asset 'a.jpg'"),
        (["photos", "--asset-id", "one"], "names one image"),
        (["photos/notes.txt", "", "--out", "new"], "the path is empty"),
        (["photos", "--out", ""], "the path is empty"),
    ],
)
def test_names_that_would_lose_a_file_are_refused_before_the_first_job(
    stack_environment: dict[str, str], photos: Path, arguments: list[str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(photos.parent)
    run = aii(stack_environment, "activate", *arguments)
    assert (run.returncode, said in " ".join(run.stderr.split())) == (2, True), run.stderr
    assert not (photos.parent / "new").exists()


def test_jobs_that_were_not_waited_for_are_waited_for_and_fetched_later(
    stack_environment: dict[str, str], photos: Path, tmp_path: Path
) -> None:
    submitted = aii(stack_environment, "activate", str(photos / "sub"), str(photos / "c.JPG"), "--no-wait", "--json")
    assert submitted.returncode == 0, submitted.stderr
    told = [json.loads(line) for line in submitted.stdout.splitlines()]
    assert [(line["status"], line["new"]) for line in told] == 2 * [("submitted", True)]
    first, second = (line["job_id"] for line in told)

    waited = aii(stack_environment, "jobs", "wait", first[:12], second, "--json")
    assert waited.returncode == 0, waited.stderr
    assert {json.loads(line)["status"] for line in waited.stdout.splitlines()} == {"activated"}
    assert f"{first}: activated" in aii(stack_environment, "jobs", "wait", first).stdout

    out = tmp_path / "fetched"
    for _ in range(2):  # the same files again are no other files
        assert aii(stack_environment, "jobs", "download", first, second, "--out", str(out)).returncode == 0
    assert {path.name for path in out.iterdir()} == {"a.jpg", "c.JPG", "manifest.csv", "manifest.jsonl"}
    (out / "a.jpg").write_bytes(b"mine")
    refused = aii(stack_environment, "jobs", "download", first, "--out", str(out))
    assert (refused.returncode, "exists already" in refused.stderr) == (2, True)
    assert aii(stack_environment, "jobs", "download", first, "--out", str(out), "--force").returncode == 0
    assert (out / "a.jpg").read_bytes() != b"mine"

    refused = aii(stack_environment, "activate", str(photos), "--no-wait", "--out", str(tmp_path / "x"))
    assert (refused.returncode, "aii jobs download" in refused.stderr) == (2, True)


def test_answers_are_a_table_and_a_page_that_shows_query_and_matches(
    stack_environment: dict[str, str], photos: Path, tmp_path: Path
) -> None:
    hostile = photos / "sub" / "<script>alert(1)<.jpg"
    (photos / "sub" / "a.jpg").unlink()
    hostile.write_bytes(crops(9)[8])  # one that no other test has registered under a name of its own
    activated = aii(stack_environment, "activate", str(photos / "sub"), "--asset-id-from", "name")
    assert activated.returncode == 0, activated.stderr
    table, page = tmp_path / "answers.csv", tmp_path / "answers.html"
    reports = ["--csv", str(table), "--html", str(page)]
    run = aii(stack_environment, "query", str(photos / "sub"), str(photos / "broken.jpg"), *reports)
    assert run.returncode == 1, run.stderr
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert (rows[0]["image"], rows[0]["rank"], rows[0]["asset_id"]) == (str(hostile), "1", hostile.name)
    assert (rows[-1]["status"], rows[-1]["error_code"]) == ("failed", "truncated")
    text = page.read_text()
    assert text.count("data:image/jpeg;base64,") >= 2
    assert ("<script" in text, "&lt;script&gt;alert(1)&lt;.jpg" in text) == (False, True)
    again = aii(stack_environment, "query", str(hostile), *reports)
    assert (again.returncode, "--force replaces it" in again.stderr) == (2, True)
    onto = aii(stack_environment, "query", str(hostile), "--html", str(hostile), "--force")
    assert (onto.returncode, "is one of the images" in " ".join(onto.stderr.split())) == (2, True)
