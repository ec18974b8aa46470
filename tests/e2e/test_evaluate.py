"""`aii evaluate`, as a person runs it."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
import torch
import torchvision.models

from tests.onnx_graphs import SIDE, convolutional
from tests.photographs import crops
from tests.stack import AII, WorkerProcess, aii, aii_here
from tests.waiting import wait_for
from workers.evaluation.findings import TABLES
from workers.index.maintenance.starter import read_card


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    for i, data in enumerate(crops(5, side=160)):
        (folder / f"{i}.jpg").write_bytes(data)
    (folder / "torn.jpg").write_bytes(crops(1)[0][:800])
    return folder


@pytest.fixture(scope="module")
def references(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("references")
    for i, data in enumerate(crops(300, side=64)):
        (folder / f"{i:03d}.jpg").write_bytes(data)
    return folder


INDEXES = ("--factory", "IVF4,PQ8x4", "--other", "PQ8x4")
BRIEF = "--indexes-only"  # without the activations that one evaluation shows for all


@pytest.fixture(scope="module")
def undisturbed(images: Path, references: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an evaluation that ran through."""
    out = tmp_path_factory.mktemp("undisturbed")
    done = evaluate("--images", images, "--references", references, *INDEXES, "--out", out)
    assert done.returncode == 0, done.stderr
    return out


def evaluate(*arguments: str | Path, environment: Mapping[str, str] = os.environ) -> subprocess.CompletedProcess[str]:
    return aii(dict(environment), "evaluate", *map(str, arguments))


def evaluate_here(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """The same in this process, for what is refused before anything is computed."""
    return aii_here(dict(os.environ), "evaluate", *map(str, arguments))


def kill_while_activating(*arguments: str | Path) -> None:
    """As soon as one image is activated; and leaves half a line behind, as a kill within a write would."""
    lines = Path(arguments[-1]) / "state" / "published" / "IVF4_PQ8x4-10-jnd-3" / "images.jsonl"
    program = [*AII, "evaluate", *map(str, arguments)]
    with subprocess.Popen(program, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        wait_for(lambda: lines.exists() and lines.stat().st_size > 0)
        process.kill()
    with lines.open("a") as file:
        file.write('{"image": "1.jpg", "fi')


def activated_in(undisturbed: Path, out: Path) -> Path:
    """A folder in which the images of an evaluation are activated and edited already; references and indexes are not
    there."""
    for kept in ("copies", "published"):
        shutil.copytree(undisturbed / "state" / kept, out / "state" / kept)
    return out


def rows(path: Path, columns: Sequence[str]) -> list[list[str]]:
    with path.open(newline="") as file:
        return [[row[column] for column in columns] for row in csv.DictReader(file)]


def test_a_report_its_tables_and_the_same_tables_after_an_interruption(
    images: Path, references: Path, undisturbed: Path, tmp_path: Path
) -> None:
    arguments = ("--images", images, "--references", references, *INDEXES)
    kill_while_activating(*arguments, "--out", tmp_path)
    done = evaluate(*arguments, "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "IVF4,PQ8x4, nprobe 16" in done.stdout
    assert "editing PQ8x4-10-jnd-3: 4" in done.stderr
    assert "1 files are left out" in done.stderr
    recall = rows(tmp_path / "recall.csv", ("index", "nprobe", "activated", "edit", "recall_at_1"))
    assert {row[0] for row in recall} == {"Flat", "IVF4,PQ8x4", "PQ8x4"}
    assert len({row[3] for row in recall}) == 17  # fourteen edits and their average, mirrored copies and screenshots
    assert ["Flat", "0", "0", "identity", "1.0000"] in recall
    for name, columns in (
        ("recall", ("index", "nprobe", "activated", "edit", "recall_at_1", "low", "high")),
        ("ranks", ("nprobe", "activated", "k", "recall", "low", "high")),
        ("pairs", ("nprobe", "activated", "normalised", "average_precision", "low", "high")),
        ("cells", ("activated", "edit", "left")),
        ("distances", ("what", "activated", "from", "images")),
        ("released", ("release", "passive", "activated")),
        ("images", ("image", "psnr_db", "ssim", "linf", "steps")),
        ("search", ("index", "nprobe", "vectors", "bytes_per_vector")),
        ("detection", ("activated", "recall", "precision")),
        ("ways", ("way", "images", "recall_at_1", "psnr_db")),
        ("strengths", ("way", "alpha", "recall_at_1", "psnr_db", "psnr_y_db", "ssim")),
    ):
        assert rows(tmp_path / f"{name}.csv", columns) == rows(undisturbed / f"{name}.csv", columns)
    page = (tmp_path / "report.html").read_text()
    assert {path.stem for path in undisturbed.glob("*.csv")} == set(TABLES)
    assert len(rows(tmp_path / "times.csv", ("nprobe", "ms_p50"))) == 8  # seven numbers of cells, and one index without
    assert "torn.jpg" in page
    assert page.count("<svg") == 7
    assert "data:image/jpeg;base64," in page
    assert 'src="http' not in page
    again = evaluate_here(*arguments, "--out", tmp_path, "--seed", "1")
    assert (again.returncode, "something else (photographs, seed changed)" in again.stderr) == (1, True)


def test_activated_references_of_disc_do_not_compete_with_themselves(tmp_path: Path) -> None:
    files = crops(603, side=64)
    for i, data in enumerate(files):
        part, name = ("refs/refs_50k_0", f"R{i:06d}") if i < 300 else ("train", f"T{i:06d}")
        part, name = ("dev_queries", f"Q{i - 600:05d}") if i >= 600 else (part, name)
        (tmp_path / part).mkdir(exist_ok=True, parents=True)
        (tmp_path / part / f"{name}.jpg").write_bytes(data)
    named = "".join(f"Q{i:05d},R{i:06d}\n" for i in range(2))
    (tmp_path / "dev_queries_groundtruth.csv").write_text(named)
    out = tmp_path / "out"
    done = evaluate("--disc", tmp_path, "--factory", "PQ8x4", "--other", "PQ4x4", BRIEF, "--out", out)
    assert done.returncode == 0, done.stderr
    recall = rows(out / "recall.csv", ("index", "activated", "edit", "recall_at_1"))
    assert ["Flat", "0", "identity", "1.0000"] in recall
    assert rows(out / "search.csv", ("index", "vectors"))[0] == ["Flat", "300"]  # 298 others, and 2 registered
    assert "2 registered, 1 unrelated" in (out / "report.html").read_text()


def test_workers_who_extract_the_references_lead_to_the_same_tables(
    images: Path, references: Path, undisturbed: Path, tmp_path: Path, stack_environment: dict[str, str],
    start_worker: Callable[..., WorkerProcess],
) -> None:  # fmt: skip
    start_worker()
    arguments = ("--images", images, "--references", references, BRIEF)
    out = activated_in(undisturbed, tmp_path / "there")
    there = evaluate(*arguments, *INDEXES, "--queue", "--out", out, environment=stack_environment)
    assert there.returncode == 0, there.stderr
    assert "extracting references: 300" in there.stderr
    assert (tmp_path / "there" / "recall.csv").read_text() == (undisturbed / "recall.csv").read_text()
    index = ("--index", "starter", "--other", "PQ4x4")
    served = evaluate(*arguments, *index, "--out", tmp_path / "index", environment=stack_environment)
    assert f"{read_card().factory}, nprobe 1" in served.stdout, served.stderr  # which 300 references could not train


def test_what_was_activated_for_one_extractor_is_searched_with_another(
    images: Path, references: Path, undisturbed: Path, tmp_path: Path
) -> None:
    torch.save(torchvision.models.resnet18(weights=None).state_dict(), tmp_path / "resnet18.pth")
    other = f"resnet18+gem@{tmp_path}/resnet18.pth#size=64"
    out = activated_in(undisturbed, tmp_path / "out")
    done = evaluate("--images", images, "--references", references, *INDEXES, BRIEF, "--transfer", other, "--out", out)
    assert done.returncode == 0, done.stderr
    found = rows(out / "transfer.csv", ("activated", "edit", "recall_at_1"))
    assert len(found) == 2 * 15
    assert {row[0] for row in found} == {"0", "1"}
    assert "Searched with another extractor" in (out / "report.html").read_text()


def test_references_by_onnx_runtime_are_not_mixed_with_those_by_the_extractor(
    images: Path, references: Path, tmp_path: Path
) -> None:
    network = convolutional().save(tmp_path / "net.onnx")
    arguments = ("--extractor", f"{network}#size={SIDE}", "--images", images, "--references", references, BRIEF,
                 "--factory", "PQ8x4", "--other", "PQ4x4", "--out", tmp_path / "out")  # fmt: skip
    done = evaluate(*arguments, "--fast-references")
    assert done.returncode == 0, done.stderr
    assert "--fast-references" in (tmp_path / "out" / "report.html").read_text()
    other = evaluate_here(*arguments)
    assert other.returncode == 1
    assert "extractor of references changed" in other.stderr


def test_what_cannot_be_evaluated_is_refused_with_what_would_do(images: Path, references: Path, tmp_path: Path) -> None:
    empty, few = tmp_path / "empty", tmp_path / "few"
    for folder in (empty, few):
        folder.mkdir()
    (few / "one.jpg").write_bytes(crops(1)[0])
    usual = ("--images", images, "--references", references)
    for arguments, message in (
        (("--images", empty, "--references", references), "no image that can be read"),
        (("--images", images), "--references"),
        (("--images", images, "--references", few), "needs at least 256 references (39 a cell: 624); there are 1"),
        ((*usual, "--fast-references"), "compact is none: leave out --fast-references"),
        ((*usual, "--factory", "IVF512,PQ8x8"), "at least 512 references (39 a cell: 19,968); there are 300"),
    ):
        refused = evaluate_here(*arguments, "--out", tmp_path / "out")
        assert (refused.returncode, message in refused.stderr) == (1, True), refused.stderr
    assert not (tmp_path / "out" / "state" / "setting.json").exists(), "the right command may use the same folder"
