"""Every option of an activation, through the command line and a real worker, down to the published file."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from producer import Producer
from tasks.errors import UnsupportedFormat
from tasks.messages import ActivationOptions
from tasks.results import ActivationResult
from tests import images_zoo as zoo
from tests.photographs import crops, photographs, pixels
from tests.stack import WorkerProcess, aii
from tests.waiting import LIMIT_S
from workers.activation.quality import psnr_db


@pytest.fixture(autouse=True)
def worker(shared_worker: WorkerProcess) -> WorkerProcess:
    return shared_worker


def activate(producer: Producer, data: bytes, **options: object) -> tuple[ActivationResult, Image.Image]:
    """The result document and the published image."""
    result = producer.activate(data, options=ActivationOptions.model_validate(options)).wait(LIMIT_S)
    assert isinstance(result, ActivationResult)
    return result, Image.open(io.BytesIO(producer.protected_image(result)))


def test_the_command_line_passes_every_option_on(stack_environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(crops(1)[0])
    words = "--steps 3 --learning-rate 2.5 --alpha 2 --attenuation linf --min-psnr 39 --robust --strip-metadata --json"
    done = aii(stack_environment, "activate", str(tmp_path), *words.split())
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["options"] == {
        "steps": 3,
        "learning_rate": 2.5,
        "alpha": 2.0,
        "attenuation": "linf",
        "min_psnr_db": 39.0,
        "robust": True,
        "strip_metadata": True,
        "metadata": "all",
        "quality": None,
        "lossless": False,
    }


def test_every_file_keeps_the_psnr_that_was_asked_for(producer: Producer) -> None:
    loose, _ = activate(producer, photographs()["coffee.png"], alpha=6.0)
    tight, image = activate(producer, photographs()["coffee.png"], alpha=6.0, min_psnr_db=44.0)
    assert loose.quality.psnr_db is not None
    assert loose.quality.psnr_db < 40
    assert psnr_db(pixels("coffee.png"), np.asarray(image)) >= 44
    assert tight.status == "activated"


def test_a_floor_that_the_format_cannot_keep_leaves_the_picture_passive(producer: Producer) -> None:
    result, image = activate(producer, crops(1)[0], steps=1, min_psnr_db=80.0)  # JPEG's own rounding is louder
    assert result.status == "passive"
    assert image.format == "JPEG"


def test_an_linf_bound_holds_in_the_published_file(producer: Producer) -> None:
    result, image = activate(producer, photographs()["chelsea.png"], attenuation="linf", alpha=3.0)
    assert result.quality.linf == 3
    assert np.abs(np.asarray(image).astype(int) - pixels("chelsea.png")).max() == 3


def test_robust_mode_is_verified_and_repeatable(producer: Producer) -> None:
    first, image = activate(producer, photographs()["rocket.jpg"], robust=True)
    again, same = activate(producer, photographs()["rocket.jpg"], robust=True, min_psnr_db=20.0)
    assert first.status == again.status == "activated"
    assert first.code == again.code
    assert (np.asarray(image) == np.asarray(same)).all()


def test_metadata_is_kept_unless_it_shall_be_stripped(producer: Producer) -> None:
    exif = Image.Exif()
    exif[zoo.ARTIST] = "Ada"
    wide = zoo.rgb_profile(zoo.DISPLAY_P3_D50, 1.8)
    data = zoo.saved(pixels("chelsea.png"), "PNG", icc_profile=wide, exif=exif)
    kept, image = activate(producer, data)
    assert kept.status == "activated"
    assert image.getexif()[zoo.ARTIST] == "Ada"
    assert "icc_profile" in image.info
    stripped, bare = activate(producer, data, strip_metadata=True)
    assert stripped.status == "activated"
    assert not bare.getexif()
    assert "icc_profile" not in bare.info
    assert kept.quality.psnr_db is not None
    assert kept.quality.psnr_db > 38


def test_a_jpeg_keeps_its_compression_unless_another_is_asked_for(producer: Producer) -> None:
    photo = Image.open(io.BytesIO(photographs()["rocket.jpg"])).convert("RGB")
    data = zoo.saved(photo, "JPEG", quality=80, subsampling="4:2:0")
    source = Image.open(io.BytesIO(data))
    kept, image = activate(producer, data)
    assert kept.status == "activated"
    assert image.quantization == source.quantization
    finer, image = activate(producer, data, quality=95)
    assert finer.status == "activated"
    assert sum(image.quantization[0]) < sum(source.quantization[0])
    exact, image = activate(producer, data, lossless=True)
    assert (exact.status, image.format) == ("activated", "PNG")


def test_a_grey_photograph_and_one_of_16_bits_are_protected_as_such(producer: Producer) -> None:
    grey = zoo.saved(Image.fromarray(pixels("chelsea.png")).convert("L"), "JPEG", quality=90)
    result, image = activate(producer, grey)
    assert (result.status, image.mode) == ("activated", "L")
    deep = pixels("coffee.png").astype(">u2") * 257
    result, image = activate(producer, zoo.png((600, 400), 16, 2, zoo.rows_of(deep)))
    assert result.status == "activated"
    assert producer.protected_image(result)[24] == 16


def test_cmyk_that_no_format_can_hold_is_refused_with_the_remedy(producer: Producer) -> None:
    inks = zoo.saved(Image.fromarray(pixels("chelsea.png")).convert("CMYK"), "JPEG", quality=95)
    result, image = activate(producer, inks)
    assert (result.status, image.mode) == ("activated", "CMYK")
    with pytest.raises(UnsupportedFormat, match="CMYK is published as JPEG only"):
        activate(producer, inks, lossless=True)
