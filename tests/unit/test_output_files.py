"""No command writes over a file that it was not told to replace, and each says so before it works."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from producer.cli import aii

# None of them gets so far as to ask a service: these do not answer.
AWAY = {"AII_REDIS_URL": "redis://127.0.0.1:1/0", "AII_S3_ENDPOINT": "127.0.0.1:1"}


def run(tmp_path: Path, *arguments: str | Path) -> Result:
    return CliRunner().invoke(
        aii, [str(argument) for argument in arguments], env=AWAY | {"AII_STATE_DIR": str(tmp_path)}
    )


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    return folder


# A command and the file that it would write; OUT is a folder.
COMMANDS = [
    (["index", "export", "any", "OUT/mine.jpg"], "mine.jpg"),
    (["index", "audit", "any", "--candidate", "other", "--csv", "OUT/mine.csv"], "mine.csv"),
    (["index", "retrain", "any", "--csv", "OUT/mine.csv"], "mine.csv"),
    (["extractor", "measure", "--photos", "IN", "--references", "IN", "--json", "OUT/mine.json"], "mine.json"),
    *(
        (["extractor", "train", "--images", "IN", "--minutes", "1", "--out", "OUT/mine.safetensors"], name)
        for name in ("mine.safetensors", "mine.json", "mine.csv", "mine.checkpoint.pt")
    ),
    *(
        (["evaluate", "--images", "IN", "--references", "IN", "--out", "OUT"], name)
        for name in ("report.html", "recall.csv", "distances.csv")
    ),
    (["index", "make-starter", "--references", "IN", "--description", "x", "--out", "OUT"], "codes.npz"),
    *((["demo", "--images", "IN", "--out", "OUT"], name) for name in ("recall.csv", "sheet.png", "protected")),
    (["buckets", "policies", "OUT"], "s3-worker.json"),
]


@pytest.mark.parametrize(("command", "name"), COMMANDS)
def test_a_file_that_is_there_is_replaced_only_when_the_command_is_told_to(
    command: list[str], name: str, images: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / name).write_text("mine")
    given = [part.replace("OUT", str(out)).replace("IN", str(images)) for part in command]
    refused = run(tmp_path, *given)
    said = " ".join(refused.output.split())
    assert (refused.exit_code, "exists already. --force replaces it." in said, name in said) == (2, True, True), said
    assert {path.name: path.read_text() for path in out.iterdir()} == {name: "mine"}
    if "make-starter" in command:
        return  # it would go on for minutes
    forced = run(tmp_path, *given, "--force")  # which goes on, to what is missing here
    assert "exists already" not in forced.output
    assert "unexpected" not in forced.output


def test_policies_that_are_as_they_were_written_are_no_files_of_others(tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run(tmp_path, "buckets", "policies", out).exit_code == 0
    written = {path.name: path.read_text() for path in out.iterdir()}
    assert run(tmp_path, "buckets", "policies", out).exit_code == 0
    (out / "s3-worker.json").write_text("{}")
    (out / "s3-producer.json").unlink()
    assert run(tmp_path, "buckets", "policies", out).exit_code == 2
    assert (out / "s3-worker.json").read_text() == "{}"
    assert not (out / "s3-producer.json").exists()
    assert run(tmp_path, "buckets", "policies", out, "--force").exit_code == 0
    assert {path.name: path.read_text() for path in out.iterdir()} == written


def test_an_output_is_a_file_in_a_folder_that_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "file" / "x.tar", tmp_path / "pipe"):
        for force in ([], ["--force"]):
            refused = run(tmp_path, "index", "export", "any", path, *force)
            assert (refused.exit_code, "written" in refused.output) == (2, True), refused.output
