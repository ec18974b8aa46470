"""Features of many files on disk: nothing twice, nothing lost, whatever interrupts."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tasks.errors import InvalidRequest
from tasks.names import sha256_hex
from tests.photographs import crops
from workers.extractors.base import Extractor
from workers.extractors.features import FeatureFolder
from workers.extractors.registry import load_extractor
from workers.images import Limits, decode
from workers.images.folders import listed_images
from workers.images.tensors import to_input

LIMITS = Limits(max_bytes=2**20, max_pixels=10**6)
COUNT = 70  # more than two batches


@pytest.fixture(scope="module")
def extractor() -> Extractor:
    return load_extractor("compact", torch.device("cpu"))


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    for i, data in enumerate(crops(COUNT)):
        (folder / f"{i:03d}.jpg").write_bytes(data)
    return folder


def filled(folder: Path, extractor: Extractor, *sources: Path) -> FeatureFolder:
    made = FeatureFolder(folder, extractor, sources)
    made.fill(LIMITS, lambda _: None)
    return made


def test_every_file_has_its_feature_at_the_place_of_its_digest(
    extractor: Extractor, images: Path, tmp_path: Path
) -> None:
    made = filled(tmp_path, extractor, images)
    data = (images / "041.jpg").read_bytes()
    place = made.assets.index(sha256_hex(data))
    expected = extractor(to_input(decode(data, LIMITS).pixels, extractor.input_size)[None])[0]
    assert np.allclose(made.features[place], expected, atol=1e-5)
    assert made.features.shape == (COUNT, extractor.dimension)


def test_an_interrupted_run_goes_on_and_what_it_left_half_done_is_cut_off(
    extractor: Extractor, images: Path, tmp_path: Path
) -> None:
    whole = filled(tmp_path / "whole", extractor, images)

    class Interrupted(Exception):
        pass

    def interrupt(done: int) -> None:
        if done >= 32:
            raise Interrupted

    parted = FeatureFolder(tmp_path / "parted", extractor, [images])
    with pytest.raises(Interrupted):
        parted.fill(LIMITS, interrupt)
    with (tmp_path / "parted" / "features.f32").open("ab") as file:
        file.write(b"half of a feature")
    with (tmp_path / "parted" / "assets.txt").open("a") as file:
        file.write("0" * 64 + "\n")
    again, counts = FeatureFolder(tmp_path / "parted", extractor, [images]), []
    again.fill(LIMITS, counts.append)
    assert counts == [32, 64, COUNT]
    assert again.assets == whole.assets
    assert np.array_equal(again.features, whole.features)


def test_unreadable_files_are_listed_and_skipped_and_a_file_under_two_names_is_one_asset(
    extractor: Extractor, images: Path, tmp_path: Path
) -> None:
    source = tmp_path / "images.tar"
    good = (images / "000.jpg").read_bytes()
    with tarfile.open(source, "w") as tar:
        for name, data in (("a.jpg", good), ("b.jpg", good), ("c.jpg", good[:500]), ("notes.txt", b"no image")):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    made = filled(tmp_path / "features", extractor, source)
    assert made.assets == [sha256_hex(good)]
    assert [line.split(":")[0] for line in made.skipped] == ["c.jpg"]
    assert "[truncated]" in made.skipped[0]


def test_a_folder_of_other_images_is_refused(extractor: Extractor, images: Path, tmp_path: Path) -> None:
    filled(tmp_path / "features", extractor, images)
    with pytest.raises(InvalidRequest, match="other images"):
        FeatureFolder(tmp_path / "features", extractor, [tmp_path])


def test_a_folder_whose_images_were_exchanged_is_refused(extractor: Extractor, images: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name in ("000.jpg", "001.jpg"):
        (source / name).write_bytes((images / name).read_bytes())
    filled(tmp_path / "features", extractor, source)
    (source / "001.jpg").write_bytes((images / "002.jpg").read_bytes())
    with pytest.raises(InvalidRequest, match="other images"):
        FeatureFolder(tmp_path / "features", extractor, [source])


def test_a_file_that_the_system_does_not_let_us_read_is_listed_and_skipped(
    extractor: Extractor, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "good.jpg").write_bytes((images / "000.jpg").read_bytes())
    (source / "gone.jpg").write_bytes((images / "001.jpg").read_bytes())
    opened = Path.open

    def refuse(path: Path, *args: Any, **options: Any) -> Any:
        if path.name == "gone.jpg":  # permissions would not stop a test that runs as root
            raise PermissionError(13, "Permission denied")
        return opened(path, *args, **options)

    monkeypatch.setattr(Path, "open", refuse)
    made = filled(tmp_path / "features", extractor, source)
    assert len(made.assets) == 1
    assert made.skipped == ["gone.jpg: The file cannot be read: Permission denied. [bad_input]"]


def test_a_source_may_be_one_image_but_not_anything_else(extractor: Extractor, images: Path, tmp_path: Path) -> None:
    assert len(filled(tmp_path / "one", extractor, images / "000.jpg").assets) == 1
    for name, content in (("notes.txt", b"no image"), ("packed.tar.gz", gzip.compress(bytes(10_240)))):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InvalidRequest, match="neither an image"):
            list(listed_images(tmp_path / name))


def test_a_name_that_is_no_text_can_be_printed(images: Path, tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"caf\xe9.jpg")).write_bytes((images / "000.jpg").read_bytes())
    assert [file.name for file in listed_images(tmp_path)] == ["caf\\udce9.jpg"]


def test_without_images_there_are_no_features(extractor: Extractor, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    made = filled(tmp_path / "features", extractor, tmp_path / "empty")
    assert made.features.shape == (0, extractor.dimension)
