"""Bytes to pixels and back: what is read, how it is written."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image, ImageCms
from PIL.JpegImagePlugin import JpegImageFile

from tasks.errors import AnimatedImage, EmptyImage, TooLarge, TooSmall, UnsupportedFormat
from tests import images_zoo as zoo
from workers.images import DecodedImage, Limits, decode, encode
from workers.images.coding import LOSSLESS_PNG, Coding, standard_jpeg
from workers.images.metadata import Blocks

READABLE = zoo.readable()
FORMATS = ("JPEG", "PNG", "WEBP")

# Pillow warns about damaged metadata that it then ignores; so do we.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")


def difference(a: np.ndarray, b: np.ndarray) -> int:
    assert a.shape == b.shape
    return int(np.abs(a.astype(int) - b.astype(int)).max())


CODINGS = {"JPEG": standard_jpeg(95), "PNG": LOSSLESS_PNG, "WEBP": Coding("WEBP")}


def source(file_format: str, *, alpha: bool = False, exif: bytes | None = None) -> DecodedImage:
    pixels = zoo.noise(24, 32, 3)
    blocks = Blocks(exif=exif.removeprefix(b"Exif\0\0") if exif else None)
    return DecodedImage(pixels, zoo.noise(24, 32) if alpha else None, file_format, CODINGS[file_format], blocks)  # type: ignore[arg-type]


# ---------------------------------------------------------------------------------------------------------- decoding


@pytest.mark.parametrize("name", READABLE)
def test_a_file_of_every_colour_mode_decodes_to_the_pixels_it_shows(name: str) -> None:
    sample = READABLE[name]
    image = decode(sample.data, zoo.LIMITS)
    assert image.pixels.dtype == np.uint8
    assert difference(image.pixels, sample.pixels) <= sample.tolerance


@pytest.mark.parametrize("name", READABLE)
def test_transparency_is_set_aside_exactly_and_only_where_the_file_has_it(name: str) -> None:
    sample = READABLE[name]
    alpha = decode(sample.data, zoo.LIMITS).alpha
    if sample.alpha is None:
        assert alpha is None
    else:
        assert alpha is not None
        assert difference(alpha, sample.alpha) == 0


@pytest.mark.parametrize("file_format", FORMATS)
def test_the_source_format_is_named_by_content(file_format: str) -> None:
    assert decode(zoo.saved(zoo.photo(), file_format), zoo.LIMITS).source_format == file_format


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("file_format", ["PNG", "WEBP"])
def test_every_exif_orientation_comes_out_upright(file_format: str, orientation: int) -> None:
    image = decode(zoo.oriented(file_format)[orientation], zoo.LIMITS)
    assert difference(image.pixels, zoo.photo()) == 0


def test_a_turned_jpeg_comes_out_upright() -> None:
    upright = [decode(data, zoo.LIMITS).pixels for data in zoo.oriented("JPEG").values()]
    assert max(float(np.abs(pixels.astype(int) - zoo.photo()).mean()) for pixels in upright) < 8


def test_alpha_is_turned_with_the_pixels() -> None:
    rgba = zoo.noise(24, 32, 4)
    image = decode(zoo.saved(rgba, "PNG", exif=zoo.exif_block(6)), zoo.LIMITS)
    assert image.alpha is not None
    assert difference(np.dstack([image.pixels, image.alpha]), np.rot90(rgba, -1)) == 0


@pytest.mark.parametrize("name", READABLE)
def test_pixels_are_writable_so_that_a_tensor_may_share_them(name: str) -> None:
    pixels = decode(READABLE[name].data, zoo.LIMITS).pixels
    assert pixels.flags.writeable
    assert pixels.flags.c_contiguous


@pytest.mark.parametrize("file_format", ["PNG", "WEBP"])
def test_an_srgb_profile_leaves_every_pixel_as_it_is(file_format: str) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    options = {"lossless": True} if file_format == "WEBP" else {}
    data = zoo.saved(zoo.noise(64, 64, 3), file_format, icc_profile=profile, **options)
    assert difference(decode(data, zoo.LIMITS).pixels, zoo.noise(64, 64, 3)) == 0


def test_the_zoo_s_wide_profile_does_move_colours() -> None:
    sample = READABLE["png with a wide profile"]
    assert difference(sample.pixels, zoo.photo()) > 20


def test_a_phone_s_multi_picture_jpeg_is_its_first_picture() -> None:
    pictures = [Image.fromarray(zoo.photo()), Image.fromarray(zoo.photo()[::-1])]
    data = zoo.saved(pictures[0], "MPO", save_all=True, append_images=pictures[1:], quality=100)
    image = decode(data, zoo.LIMITS)
    assert image.source_format == "JPEG"
    assert float(np.abs(image.pixels.astype(int) - zoo.photo()).mean()) < 8


def test_threads_decoding_at_once_get_what_one_thread_gets() -> None:
    names = list(READABLE) * 6
    alone = {name: decode(sample.data, zoo.LIMITS).pixels for name, sample in READABLE.items()}
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda name: decode(READABLE[name].data, zoo.LIMITS).pixels, names))
    assert all(difference(pixels, alone[name]) == 0 for name, pixels in zip(names, together, strict=True))


# ------------------------------------------------------------------------------------------------------------ limits


def test_the_pixel_limit_is_inclusive_and_the_message_states_size_and_limit() -> None:
    data = zoo.saved(zoo.photo(40, 50), "PNG")
    assert decode(data, Limits(10**6, 2000)).pixels.shape == (40, 50, 3)
    with pytest.raises(TooLarge, match=r"50 × 40 pixels; the limit is 1,999"):
        decode(data, Limits(10**6, 1999))


def test_the_byte_limit_is_inclusive_and_the_message_states_size_and_limit() -> None:
    data = zoo.saved(zoo.photo(), "PNG")
    decode(data, Limits(len(data), 10**6))
    with pytest.raises(TooLarge, match=rf"{len(data):,} bytes; the limit is {len(data) - 1:,}"):
        decode(data, Limits(len(data) - 1, 10**6))


def test_the_shorter_side_may_be_as_short_as_the_limit() -> None:
    data = zoo.saved(zoo.photo(20, 50), "PNG")
    decode(data, Limits(10**6, 10**6, min_side=20))
    with pytest.raises(TooSmall, match="50 × 20 pixels; each side needs at least 21"):
        decode(data, Limits(10**6, 10**6, min_side=21))


def test_bytes_are_checked_before_anything_else() -> None:
    with pytest.raises(TooLarge):
        decode(b"<html>" * 100, Limits(99, 10**6))


def test_an_empty_file_is_named_so() -> None:
    with pytest.raises(EmptyImage, match="empty"):
        decode(b"", zoo.LIMITS)


@pytest.mark.parametrize(
    ("name", "looks_like"),
    [("html", "an HTML page"), ("svg", "an SVG"), ("pdf", "a PDF"), ("bmp", "a BMP")],
)
def test_an_unsupported_file_is_told_what_it_looks_like_and_what_is_accepted(name: str, looks_like: str) -> None:
    with pytest.raises(UnsupportedFormat, match=f"looks like {looks_like}.*JPEG, PNG, WebP, TIFF, GIF, AVIF and HEIC"):
        decode(zoo.hostile()[name].data, zoo.LIMITS)


def test_an_animation_is_told_to_send_one_frame() -> None:
    with pytest.raises(AnimatedImage, match="Send one frame"):
        decode(zoo.hostile()["animated webp"].data, zoo.LIMITS)


# ---------------------------------------------------------------------------------------------------------- encoding


@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("file_format", ["PNG", "WEBP"])
def test_png_and_webp_come_back_bit_exact_with_their_alpha(file_format: str, alpha: bool) -> None:
    like = source(file_format, alpha=alpha)
    changed = 255 - like.pixels
    again = decode(encode(changed, like).data, zoo.LIMITS)
    assert difference(again.pixels, changed) == 0
    if like.alpha is None:
        assert again.alpha is None
    else:
        assert again.alpha is not None
        assert difference(again.alpha, like.alpha) == 0


@pytest.mark.parametrize("file_format", ["PNG", "WEBP"])
def test_colours_under_fully_transparent_pixels_survive(file_format: str) -> None:
    clear = np.zeros((24, 32), np.uint8)
    like = DecodedImage(zoo.noise(24, 32, 3), clear, file_format, CODINGS[file_format])  # type: ignore[arg-type]
    again = decode(encode(like.pixels, like).data, zoo.LIMITS)
    assert difference(again.pixels, like.pixels) == 0


def test_jpeg_is_written_in_full_colour_resolution() -> None:
    data = encode(zoo.photo(24, 32), source("JPEG")).data
    assert [component[1:3] for component in JpegImageFile(io.BytesIO(data)).layer] == [(1, 1)] * 3


def test_jpeg_stays_close_to_the_pixels_and_closer_at_higher_quality() -> None:
    pixels = zoo.photo()
    like = DecodedImage(pixels, None, "JPEG", standard_jpeg(95))
    errors = []
    for quality in (60, 95, 100):
        again = decode(encode(pixels, like, coding=standard_jpeg(quality)).data, zoo.LIMITS)
        errors.append(float(np.square(again.pixels.astype(float) - pixels).mean()))
    assert errors == sorted(errors, reverse=True)
    assert errors[1] < 6  # 40 dB


def test_jpeg_of_pure_noise_can_be_written() -> None:
    noise = zoo.noise(512, 512, 3)
    data = encode(noise, DecodedImage(noise, None, "JPEG", standard_jpeg(95)), coding=standard_jpeg(100)).data
    assert decode(data, Limits(2**24, 2**24)).pixels.shape == noise.shape


@pytest.mark.parametrize(
    ("file_format", "extension", "content_type"),
    [("JPEG", "jpg", "image/jpeg"), ("PNG", "png", "image/png"), ("WEBP", "webp", "image/webp")],
)
def test_the_file_is_named_after_its_format(file_format: str, extension: str, content_type: str) -> None:
    encoded = encode(zoo.noise(24, 32, 3), source(file_format))
    assert (encoded.extension, encoded.content_type) == (extension, content_type)
    assert decode(encoded.data, zoo.LIMITS).source_format == file_format


def test_the_same_pixels_give_the_same_bytes() -> None:
    like = source("JPEG", exif=zoo.exif_block())
    assert encode(like.pixels, like).data == encode(like.pixels.copy(), like).data


@pytest.mark.parametrize("wrong", [np.zeros((24, 33, 3), np.uint8), np.zeros((24, 32, 3), np.float32)])
def test_pixels_of_another_shape_or_type_are_a_mistake_of_ours(wrong: np.ndarray) -> None:
    with pytest.raises(ValueError, match="Expected uint8"):
        encode(wrong, source("PNG"))


# ---------------------------------------------------------------------------------------------------------- profiles


@pytest.mark.parametrize("file_format", FORMATS)
def test_the_colour_profile_is_kept_and_the_pixels_stay_in_its_colours(file_format: str) -> None:
    wide = zoo.rgb_profile(zoo.DISPLAY_P3_D50, 1.8)
    pixels = zoo.photo() if file_format == "JPEG" else zoo.noise(64, 64, 3)
    options = {"quality": 100, "subsampling": 0} if file_format == "JPEG" else {"lossless": True}
    source = zoo.saved(pixels, file_format, icc_profile=wide, **options)
    image = decode(source, zoo.LIMITS)
    assert difference(image.pixels, image.samples) > 10
    data = encode(image.samples, image).data
    again = decode(data, zoo.LIMITS)
    assert again.profile == image.profile
    assert difference(again.pixels, image.pixels) <= (16 if file_format == "JPEG" else 0)
    assert difference(np.asarray(Image.open(io.BytesIO(data))), np.asarray(Image.open(io.BytesIO(source)))) <= 3


def test_without_metadata_a_picture_is_published_in_srgb() -> None:
    wide = zoo.rgb_profile(zoo.DISPLAY_P3_D50, 1.8)
    exif = Image.Exif()
    exif[zoo.ARTIST] = "Ada"
    bare = decode(zoo.saved(zoo.noise(64, 64, 3), "PNG", icc_profile=wide, exif=exif), zoo.LIMITS).without_profile()
    data = encode(bare.samples, bare, keep="none").data
    assert not {"icc_profile", "exif"} & set(Image.open(io.BytesIO(data)).info)
    assert difference(decode(data, zoo.LIMITS).pixels, bare.pixels) == 0


def test_a_profile_that_cannot_be_used_or_is_of_other_colours_is_not_published() -> None:
    for name in ("png with a broken profile", "png rgb with a grey profile"):
        assert decode(READABLE[name].data, zoo.LIMITS).profile is None
