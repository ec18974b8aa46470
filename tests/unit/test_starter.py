"""The starter collection's files, and the command that makes them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from tests.photographs import crops
from workers.commands.index import index
from workers.index.codec.codec import Codec
from workers.index.maintenance import make_starter, starter


def folder_of(path: Path, photos: list[bytes]) -> Path:
    path.mkdir()
    for number, data in enumerate(photos):
        (path / f"{number:03d}.jpg").write_bytes(data)
    return path


def test_the_command_makes_a_codec_codes_and_a_card_that_fit_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(make_starter, "_PLAIN_IMAGES", 30)  # to draw all takes half a minute
    photos, out = crops(40), tmp_path / "out"
    done = CliRunner().invoke(
        index,
        ["make-starter", "--references", str(folder_of(tmp_path / "references", photos)), "--factory", "IVF2,PQ4x4",
         "--fpr", "0.2", "--description", "crops", "--out", str(out)],
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert done.output.startswith("40 codes in")
    card = starter.Card.model_validate_json((out / starter.CARD).read_bytes())
    codec = Codec.read(out / starter.CODEC, card.factory)
    with np.load(out / starter.CODES) as archive:
        assert archive["codes"].shape == (card.count, codec.code_size) == (40, 3)
    assert (card.description, card.calibration.fpr, codec.dimension) == ("crops", 0.2, card.extractor.dimension)
    assert starter.Background.read(out / starter.BACKGROUND).photographs == 40


def test_the_shipped_card_tells_of_the_shipped_codes() -> None:
    card, codes = starter.read_card(), starter.read_codes()
    codec = Codec.read(starter.FOLDER / starter.CODEC, card.factory)
    assert codes.shape == (card.count, codec.code_size)
    assert codec.dimension == card.extractor.dimension
