"""The fourteen edits of the evaluation."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from PIL import Image

from tasks.errors import InvalidRequest
from workers.images.edits import EDITS, MORE_EDITS, edit_seed
from workers.images.edits_today import TODAY

PAPERS_ORDER = [
    "identity",
    "contrast_0.5",
    "contrast_2.0",
    "brightness_0.5",
    "brightness_2.0",
    "hue_0.2",
    "blur_11",
    "jpeg_50",
    "rotation_25",
    "rotation_90",
    "crop_0.5",
    "resize_0.5",
    "meme",
    "random",
]


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    return Image.fromarray(skimage.data.chelsea())  # 451 x 300


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image).astype(np.int16)


def test_there_are_fourteen_edits_in_the_papers_order() -> None:
    assert list(EDITS) == PAPERS_ORDER


@pytest.mark.parametrize("name", PAPERS_ORDER)
def test_an_edit_returns_a_new_rgb_image_and_leaves_its_input_alone(name: str, photo: Image.Image) -> None:
    before = photo.tobytes()
    edited = EDITS[name](photo, 0)
    assert edited.mode == "RGB"
    assert edited is not photo
    assert photo.tobytes() == before


@pytest.mark.parametrize("name", [*MORE_EDITS, *TODAY])
def test_an_edit_of_today_changes_an_image_of_any_size_alike_for_the_same_seed(name: str, photo: Image.Image) -> None:
    edit, before = {**MORE_EDITS, **TODAY}[name], photo.tobytes()
    edited = edit(photo, 3)
    assert (edited.mode, photo.tobytes()) == ("RGB", before)
    assert edited.tobytes() not in (before, b"")
    assert edited.tobytes() == edit(photo, 3).tobytes()
    for size in ((1, 1), (3, 2), (40, 1)):
        assert edit(Image.new("RGB", size, "red"), 0).mode == "RGB"


def test_no_edit_of_today_is_called_like_one_of_the_paper() -> None:
    assert not {*EDITS} & {*MORE_EDITS, *TODAY}
    assert not {*MORE_EDITS} & {*TODAY}


@pytest.mark.parametrize("name", PAPERS_ORDER)
def test_an_edit_gives_the_same_pixels_for_the_same_seed(name: str, photo: Image.Image) -> None:
    assert EDITS[name](photo, 3).tobytes() == EDITS[name](photo, 3).tobytes()


@pytest.mark.parametrize("name", PAPERS_ORDER[:-1])
def test_only_the_random_edit_looks_at_the_seed(name: str, photo: Image.Image) -> None:
    assert EDITS[name](photo, 0).tobytes() == EDITS[name](photo, 1).tobytes()


def test_the_random_edit_differs_between_seeds(photo: Image.Image) -> None:
    assert len({EDITS["random"](photo, seed).tobytes() for seed in range(6)}) > 3


def test_an_original_and_its_protected_version_get_the_same_composition(photo: Image.Image) -> None:
    protected = Image.fromarray(np.asarray(photo) ^ 1)
    for name in ("a.jpg", "b.jpg", "c.jpg", "d.jpg", "e.jpg", "f.jpg"):
        original, twin = (EDITS["random"](image, edit_seed(0, name)) for image in (photo, protected))
        assert original.size == twin.size
        assert np.abs(pixels(original) - pixels(twin)).mean() < 10, name


def test_images_of_one_run_get_different_compositions_by_their_names(photo: Image.Image) -> None:
    sizes = {EDITS["random"](photo, edit_seed(0, f"{i}.jpg")).size for i in range(12)}
    assert len(sizes) > 2
    assert edit_seed(0, "a.jpg") != edit_seed(1, "a.jpg")


@pytest.mark.parametrize("name", PAPERS_ORDER)
@pytest.mark.parametrize("size", [(1, 1), (3, 40)])
def test_an_edit_survives_tiny_images(name: str, size: tuple[int, int]) -> None:
    edited = EDITS[name](Image.new("RGB", size, "red"), 0)
    assert min(edited.size) >= 1


def test_identity_changes_no_pixel(photo: Image.Image) -> None:
    assert EDITS["identity"](photo, 0).tobytes() == photo.tobytes()


@pytest.mark.parametrize("name", ["contrast_0.5", "brightness_0.5", "hue_0.2", "blur_11", "jpeg_50"])
def test_an_edit_of_values_keeps_the_size_and_changes_pixels(name: str, photo: Image.Image) -> None:
    edited = EDITS[name](photo, 0)
    assert edited.size == photo.size
    assert np.abs(pixels(edited) - pixels(photo)).mean() > 0.5


def test_brightness_scales_every_value(photo: Image.Image) -> None:
    assert np.abs(pixels(EDITS["brightness_0.5"](photo, 0)) - pixels(photo) * 0.5).max() <= 1
    assert np.abs(pixels(EDITS["brightness_2.0"](photo, 0)) - (pixels(photo) * 2).clip(0, 255)).max() <= 1


def test_contrast_scales_the_spread_of_values(photo: Image.Image) -> None:
    spread = pixels(photo).std()
    assert pixels(EDITS["contrast_0.5"](photo, 0)).std() == pytest.approx(0.5 * spread, rel=0.05)
    assert pixels(EDITS["contrast_2.0"](photo, 0)).std() > 1.5 * spread


def test_hue_turns_red_by_a_fifth_of_the_circle() -> None:
    turned = EDITS["hue_0.2"](Image.new("RGB", (4, 4), "red"), 0)
    hue = turned.convert("HSV").getpixel((0, 0))[0]
    assert hue / 255 == pytest.approx(0.2, abs=0.02)


def test_rotation_by_25_degrees_grows_the_canvas_and_blackens_the_corners(photo: Image.Image) -> None:
    edited = EDITS["rotation_25"](photo, 0)
    assert edited.width > photo.width
    assert edited.height > photo.height
    assert edited.getpixel((0, 0)) == (0, 0, 0)


def test_rotation_by_90_degrees_moves_every_pixel_and_loses_none(photo: Image.Image) -> None:
    assert np.array_equal(pixels(EDITS["rotation_90"](photo, 0)), np.rot90(pixels(photo)))


def test_crop_keeps_the_centre_half_of_the_area(photo: Image.Image) -> None:
    edited = EDITS["crop_0.5"](photo, 0)
    assert edited.width * edited.height == pytest.approx(0.5 * photo.width * photo.height, rel=0.01)
    left, top = (photo.width - edited.width) / 2, (photo.height - edited.height) / 2
    nearby = [
        photo.crop((x, y, x + edited.width, y + edited.height)).tobytes()
        for x in (int(left), round(left), int(left) + 1)
        for y in (int(top), round(top), int(top) + 1)
    ]
    assert edited.tobytes() in nearby


def test_resize_keeps_the_aspect_ratio_at_half_of_the_area(photo: Image.Image) -> None:
    edited = EDITS["resize_0.5"](photo, 0)
    assert edited.width * edited.height == pytest.approx(0.5 * photo.width * photo.height, rel=0.01)
    assert edited.width / edited.height == pytest.approx(photo.width / photo.height, rel=0.01)


def test_meme_puts_a_white_band_with_ink_above_the_untouched_picture(photo: Image.Image) -> None:
    edited = EDITS["meme"](photo, 0)
    band = edited.height - photo.height
    above = pixels(edited.crop((0, 0, edited.width, band)))
    assert edited.crop((0, band, edited.width, edited.height)).tobytes() == photo.tobytes()
    assert np.median(above) == 255
    assert above.min() < 30
    assert (above[:, [0, -1]] == 255).all(), "the caption stays inside the band"


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_auglys_random_edit_depends_on_the_seed_alone_and_survives_small_images(photo: Image.Image) -> None:
    augly_edits = pytest.importorskip("workers.evaluation.augly_edits", exc_type=InvalidRequest)  # without libmagic
    edit = augly_edits.augly_random
    assert edit(photo, 5).tobytes() == edit(photo, 5).tobytes()
    assert len({edit(photo, seed).tobytes() for seed in range(8)}) > 6
    for seed in range(60):
        for size in ((1, 1), (3, 40), (16, 16), (64, 48)):
            assert edit(Image.new("RGB", size, "red"), seed).mode == "RGB"


def test_without_libmagic_augly_is_refused_in_words_and_all_else_works(tmp_path: Path) -> None:
    (tmp_path / "magic.py").write_text("raise ImportError('failed to find libmagic')")
    program = "import workers.evaluation.run, workers.commands.evaluate\nimport workers.evaluation.augly_edits"
    path = f"{tmp_path}{os.pathsep}{Path(__file__).parents[2]}"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr.splitlines()[-1].startswith("tasks.errors.requests.InvalidRequest: AugLy cannot be used here"), (
        done.stderr
    )
