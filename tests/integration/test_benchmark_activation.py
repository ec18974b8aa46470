"""The benchmark of activation measures any extractor, with a codec made of what is at hand."""

from __future__ import annotations

import io
import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image
from torch import nn

from tests.benchmarks.activation import main
from tests.onnx_graphs import SIDE, convolutional
from tests.photographs import crops
from workers.activation.engine import Engine
from workers.extractors.registry import load_extractor
from workers.images.tensors import to_input


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.head = nn.Conv2d(3, 16, 3, stride=2), nn.Linear(16, 24)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features: torch.Tensor = self.head(self.convolution(images).relu().mean(dim=(2, 3)))
        return features


@pytest.fixture
def extractor(tmp_path: Path) -> str:
    return f"{convolutional().save(tmp_path / 'small.onnx')}#size={SIDE}"


@pytest.fixture
def scripted(tmp_path: Path) -> str:
    path = tmp_path / "small.torchscript.pt"
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated, and still what such files are made with
        torch.jit.save(torch.jit.trace(Small().eval(), torch.zeros(1, 3, SIDE, SIDE)), path)
    return f"{path}#size={SIDE}"


def run(extractor: str, out: Path, *options: str) -> Result:
    fixed = ["--extractor", extractor, "--size", "512", "--steps", "2", "--count", "2", "--json", str(out)]
    return CliRunner().invoke(main, [*fixed, *options])


def save_features(extractor: str, path: Path) -> None:
    """Of 320 small photographs."""
    images = [to_input(np.asarray(Image.open(io.BytesIO(file))), SIDE) for file in crops(320)]
    np.save(path, Engine(load_extractor(extractor, torch.device("cpu"))).features(torch.stack(images)))


@pytest.mark.parametrize("kind", ["extractor", "scripted"])
def test_an_extractor_without_a_collection_is_measured_with_a_codec_of_photographs_parts(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    name, out = request.getfixturevalue(kind), tmp_path / "rows.json"
    result = run(name, out)
    assert result.exit_code == 0, result.output
    (row,) = json.loads(out.read_text())
    assert (row["extractor"], row["images"], row["recall_engine"]) == (name, 2, None)
    assert 30 < row["psnr_db_engine"] < 60


def test_r_at_1_is_measured_among_features_of_a_file(extractor: str, tmp_path: Path) -> None:
    features, out = tmp_path / "features.npy", tmp_path / "rows.json"
    save_features(extractor, features)
    result = run(extractor, out, "--features", str(features), "--factory", "IVF4,PQ4x4")
    assert result.exit_code == 0, result.output
    (row,) = json.loads(out.read_text())
    assert all(row[f"recall_{kind}"] > 0 for kind in ("passive", "plain", "engine"))


def test_features_of_another_extractor_are_refused(extractor: str, tmp_path: Path) -> None:
    features = tmp_path / "features.npy"
    np.save(features, np.zeros((100, 5), np.float32))
    result = run(extractor, tmp_path / "rows.json", "--features", str(features))
    assert result.exit_code == 2
    assert "no features of 24 dimensions" in result.output
