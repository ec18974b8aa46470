"""`aii extractor train` and `measure`: the pixels they see, the files they leave, and what they refuse."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image

from tasks.command_line import EXIT_FAILED
from tests.images_zoo import DISPLAY_P3_D50, LIMITS, Pixels, converted, exif_block, photo, rgb_profile, saved
from tests.photographs import crops
from workers.commands.extractor import extractor
from workers.extractors.training.data import load_sets, readable
from workers.extractors.weights_file import read_weights
from workers.images.folders import listed_images

SIDE = 64  # of a thumbnail as training keeps it: nothing is scaled


def display_p3() -> tuple[bytes, Pixels]:
    image = photo(SIDE, SIDE)
    data = saved(image, "PNG", icc_profile=rgb_profile(DISPLAY_P3_D50, 1.8))
    return data, converted(image, DISPLAY_P3_D50, 1.8)


def sixteen_bit_grey() -> tuple[bytes, Pixels]:
    grey = np.linspace(0, 65_535, SIDE * SIDE).reshape(SIDE, SIDE)
    levels = np.round(grey / 257).astype(np.uint8)
    return saved(Image.fromarray(grey.astype(np.uint16)), "PNG"), np.repeat(levels[..., np.newaxis], 3, axis=2)


def lying_on_its_side() -> tuple[bytes, Pixels]:
    image = photo(SIDE, SIDE)
    return saved(np.rot90(image), "PNG", exif=exif_block(orientation=6)), image


@pytest.mark.parametrize("file", [display_p3, sixteen_bit_grey, lying_on_its_side], ids=lambda file: file.__name__)
def test_training_and_measuring_see_the_pixels_that_the_service_sees(
    file: Callable[[], tuple[bytes, Pixels]], tmp_path: Path
) -> None:
    data, expected = file()
    (tmp_path / "image.png").write_bytes(data)
    (images,) = load_sets([tmp_path], 0, LIMITS)
    seen = images.pixels[0].permute(1, 2, 0).numpy()
    assert np.abs(seen.astype(int) - expected).max() <= 2
    assert np.array_equal(next(readable(listed_images(tmp_path), LIMITS)), seen), "what is measured"


def test_a_file_that_cannot_be_read_is_left_out_of_the_training(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "0.jpg").write_bytes(crops(1)[0])
    (tmp_path / "torn.jpg").write_bytes(crops(1)[0][:500])
    (images,) = load_sets([tmp_path], 0, LIMITS)
    assert len(images) == 1
    assert "torn.jpg is left out" in caplog.text


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photographs")
    for i, data in enumerate(crops(6, side=160)):
        (folder / f"{i}.jpg").write_bytes(data)
    return folder


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(extractor, [str(argument) for argument in arguments])


def test_a_training_leaves_weights_that_a_worker_loads_their_provenance_and_the_curve(
    photographs: Path, tmp_path: Path
) -> None:
    out = tmp_path / "new" / "mine.safetensors"
    usual = ("train", "--images", photographs, "--out", out, "--batch", "2", "--hold-out", "3")
    done = run(*usual, "--minutes", "0.001")
    assert done.exit_code == 0, done.output
    _, digest = read_weights(out)
    described = json.loads(out.with_suffix(".json").read_text())
    assert described["sha256"] == digest
    assert described["training"]["command"].startswith("aii")
    assert described["training"]["data"] == {photographs.name: 4}
    steps = described["training"]["steps"]
    used_s = torch.load(out.with_suffix(".checkpoint.pt"), weights_only=True)["elapsed_s"]
    assert run(*usual, "--minutes", str((used_s + 0.001) / 60), "--resume").exit_code == 0
    assert json.loads(out.with_suffix(".json").read_text())["training"]["steps"] > steps


def test_the_figures_of_an_extractor_are_printed_and_written(photographs: Path, tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    done = run("measure", "--photos", photographs, "--references", photographs, "--hold-out", "2", "--json", path)
    assert done.exit_code == 0, done.output
    figures = json.loads(path.read_text())
    assert (figures["photographs"], figures["references"]) == (3, 6)
    assert len(figures["recall_at_1"]) == 14
    assert figures["speed_one_core"].keys() == {"forward_ms", "forward_backward_ms"}
    assert "identity" in done.output


def test_what_cannot_be_trained_or_measured_is_refused_with_what_would_do(photographs: Path, tmp_path: Path) -> None:
    usual = ("train", "--images", photographs, "--minutes", "1")
    assert "end in .safetensors" in run(*usual, "--out", tmp_path / "mine.pt").output
    missing = run(*usual, "--out", tmp_path / "mine.safetensors", "--resume")
    empty = tmp_path / "empty"
    empty.mkdir()
    nothing = run("train", "--images", empty, "--minutes", "1", "--out", tmp_path / "mine.safetensors")
    none = run("measure", "--photos", photographs / "0.jpg", "--references", photographs)
    for refused, message in ((missing, "no checkpoint"), (nothing, "no image"), (none, "two photographs")):
        assert (refused.exit_code, message in refused.stderr) == (EXIT_FAILED, True), refused.output


def test_help_loads_neither_torch_nor_numpy() -> None:
    heavy = "torch", "numpy", "numba", "PIL"
    program = f"import sys, workers.commands.extractor; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
