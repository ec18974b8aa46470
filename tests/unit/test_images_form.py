"""A protected file has its source's form: grey stays grey, CMYK CMYK, 16 bits 16, and a JPEG keeps its tables."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
import tifffile
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile, get_sampling

from tasks.errors import TruncatedImage, UnsupportedFormat
from tests import images_zoo as zoo
from workers.images import DecodedImage, EncodedImage, decode, encode

COPYRIGHT = 0x8298
Grey = np.ndarray


def again(data: bytes) -> tuple[DecodedImage, EncodedImage]:
    """A file as it is read, and as it is written when nothing was changed."""
    image = decode(data, zoo.LIMITS)
    return image, encode(image.samples, image)


def opened(encoded: EncodedImage) -> Image.Image:
    image = Image.open(io.BytesIO(encoded.data))
    image.load()
    return image


# -------------------------------------------------------------------------------------------------------------- form


@pytest.mark.parametrize("quality", [60, 75, 92])
@pytest.mark.parametrize("sampling", [0, 1, 2])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_keeps_its_tables_its_sampling_and_its_progression(
    quality: int, sampling: int, progressive: bool
) -> None:
    data = zoo.saved(zoo.photo(), "JPEG", quality=quality, subsampling=sampling, progressive=progressive)
    image = JpegImageFile(io.BytesIO(again(data)[1].data))
    assert image.quantization == JpegImageFile(io.BytesIO(data)).quantization
    assert get_sampling(image) == sampling
    assert ("progressive" in image.info) == progressive


def test_a_jpeg_with_a_table_for_each_component_keeps_them() -> None:
    tables = [[step] * 64 for step in (3, 5, 7)]
    data = zoo.saved(zoo.photo(), "JPEG", qtables=tables, subsampling=0)
    kept = JpegImageFile(io.BytesIO(again(data)[1].data))
    assert [kept.quantization[layer[3]][0] for layer in kept.layer] == [3, 5, 7]


def test_a_finer_coding_keeps_more_until_there_is_none() -> None:
    coding = decode(zoo.saved(zoo.photo(), "JPEG", quality=60, subsampling=2), zoo.LIMITS).coding
    steps = []
    while (finer := coding.finer()) is not None:
        assert (finer.sampling, sum(map(sum, finer.tables))) < (coding.sampling, sum(map(sum, coding.tables)))
        steps.append(finer)
        coding = finer
    assert 2 <= len(steps) <= 5
    assert steps[0].sampling == 0
    assert steps[-1].tables == decode(zoo.saved(zoo.photo(), "JPEG", quality=95), zoo.LIMITS).coding.tables


@pytest.mark.parametrize("quality", [40, 75, 90])
def test_a_lossy_webp_stays_lossy_at_about_its_quality(quality: int) -> None:
    pixels = np.tile(zoo.photo(96, 128), (3, 3, 1))
    data = zoo.saved(pixels, "WEBP", quality=quality)
    image, encoded = again(data)
    assert image.coding.quality == pytest.approx(quality, abs=6)
    assert len(encoded.data) < 1.25 * len(data)


def test_a_lossless_webp_stays_lossless() -> None:
    image, encoded = again(zoo.saved(zoo.noise(24, 32, 3), "WEBP", lossless=True))
    assert image.coding.quality is None
    assert (np.asarray(opened(encoded)) == zoo.noise(24, 32, 3)).all()


GREYS = {
    "jpeg": (zoo.saved(zoo.photo()[..., 0], "JPEG"), "L"),
    "png": (zoo.saved(zoo.photo()[..., 0], "PNG"), "L"),
    "png with alpha": (zoo.saved(zoo.noise(24, 32, 2), "PNG"), "LA"),
    "png of one bit": (zoo.saved(Image.fromarray(zoo.photo()[..., 0]).convert("1"), "PNG"), "L"),
    "jpeg without colours": (zoo.saved(np.repeat(zoo.photo()[..., :1], 3, axis=2), "JPEG"), "RGB"),
}


@pytest.mark.parametrize("name", GREYS)
def test_a_grey_picture_is_published_grey(name: str) -> None:
    data, mode = GREYS[name]
    image, encoded = again(data)
    assert image.is_grey
    assert opened(encoded).mode == mode


def test_a_picture_with_one_coloured_pixel_is_not_grey() -> None:
    pixels = np.repeat(zoo.photo()[..., :1], 3, axis=2)
    pixels[7, 9] = (200, 100, 50)
    assert not decode(zoo.saved(pixels, "PNG"), zoo.LIMITS).is_grey


@pytest.mark.parametrize("profile", [None, zoo.black_only_cmyk_profile()])
def test_cmyk_is_published_as_cmyk_with_its_profile(profile: bytes | None) -> None:
    inks = Image.fromarray(zoo.photo()).convert("CMYK")
    data = zoo.saved(inks, "JPEG", quality=95, icc_profile=profile)
    published = opened(again(data)[1])
    assert published.mode == "CMYK"
    assert published.info.get("icc_profile") == profile
    original = Image.open(io.BytesIO(data))
    assert np.abs(np.asarray(published).astype(int) - np.asarray(original)).mean() < 2


@pytest.mark.parametrize("file_format", ["PNG", "GIF", "TIFF"])
@pytest.mark.parametrize(("colours", "most", "off"), [(200, 256, 32), (64, 256, 3), (10, 64, 3)])
def test_a_picture_of_few_colours_is_published_with_a_palette(
    file_format: str, colours: int, most: int, off: int
) -> None:
    source = zoo.saved(Image.fromarray(zoo.photo(96, 128)).quantize(colours), file_format)
    image = decode(source, zoo.LIMITS)
    changed = changed_smoothly(image.samples)
    published = opened(encode(changed, image))
    assert published.mode == "P"
    assert len(published.getcolors()) <= most
    assert np.abs(np.asarray(published.convert("RGB")).astype(int) - changed).max() <= off
    finer = image.coding.finer()
    assert finer is not None
    assert (np.asarray(opened(encode(changed, image, coding=finer))) == changed).all()


def test_a_palette_keeps_its_transparent_pixels() -> None:
    source = zoo.saved(Image.fromarray(zoo.photo(96, 128)).quantize(40), "PNG", transparency=7)
    image = decode(source, zoo.LIMITS)
    published = opened(encode(changed_smoothly(image.samples), image))
    assert published.mode == "P"
    assert (np.asarray(published.convert("RGBA"))[..., 3] == image.alpha).all()


def test_a_palette_with_half_transparent_colours_becomes_rgba() -> None:
    source = zoo.saved(Image.fromarray(zoo.photo(96, 128)).quantize(40), "PNG", transparency=bytes(range(0, 240, 6)))
    image, encoded = again(source)
    assert (np.asarray(opened(encoded)) == np.dstack([image.samples, image.alpha])).all()


def test_a_rare_colour_among_many_is_not_exchanged_for_another() -> None:
    picture = Image.fromarray(zoo.photo(256, 384)).convert("L").convert("RGB")
    picture.paste((255, 0, 0), (100, 100, 103, 102))
    image = decode(zoo.saved(picture.quantize(256, Image.Quantize.FASTOCTREE), "PNG"), zoo.LIMITS)
    red = image.pixels[101, 101].astype(int)
    assert red[0] > red[1] + 150
    published = np.asarray(opened(encode(changed_smoothly(image.samples), image)).convert("RGB")).astype(int)
    assert np.abs(published[101, 101] - red).max() <= 32


def changed_smoothly(samples: np.ndarray) -> np.ndarray:
    """By up to three levels, as an activation changes a picture."""
    height, width = samples.shape[:2]
    wave = 3 * np.sin(np.linspace(0, 6, height))[:, np.newaxis] * np.cos(np.linspace(0, 9, width))
    return (samples + wave[..., np.newaxis].round()).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_a_png_of_16_bits_stays_so_sample_by_sample(channels: int) -> None:
    deep = np.random.default_rng(5).integers(0, 65_536, (20, 24, channels)).astype(">u2")
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    image, encoded = again(zoo.png((24, 20), 16, kind, zoo.rows_of(deep)))
    assert image.samples.dtype == np.uint16
    assert encoded.data[24] == 16
    after = decode(encoded.data, zoo.LIMITS)
    colours = deep[..., 0] if channels < 3 else deep[..., :3]
    assert (after.samples == colours).all()
    assert after.alpha is None if channels in (1, 3) else (after.alpha == deep[..., -1]).all()


def test_a_profile_of_16_bit_samples_is_published_with_them() -> None:
    deep = np.random.default_rng(5).integers(0, 65_536, (20, 24, 3)).astype(">u2")
    plain = zoo.png((24, 20), 16, 2, zoo.rows_of(deep))
    import zlib  # noqa: PLC0415

    wide = zoo.rgb_profile(zoo.DISPLAY_P3_D50, 1.8)
    image, encoded = again(zoo.with_png_chunks(plain, zoo.chunk(b"iCCP", b"P3\0\0" + zlib.compress(wide))))
    assert np.abs(image.pixels.astype(int) - (deep / 257)).max() > 10
    assert Image.open(io.BytesIO(encoded.data)).info["icc_profile"] == wide


# ----------------------------------------------------------------------------------------------------------- colours


def linear(pixels: np.ndarray) -> np.ndarray:
    values = pixels / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def srgb(light: np.ndarray) -> np.ndarray:
    light = light.clip(0, 1)
    return 255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


P3_TO_SRGB = np.array([[1.2249, -0.2249, 0], [-0.0420, 1.0420, 0], [-0.0196, -0.0786, 1.0982]])
CHROMATICITIES_P3 = struct.pack(">8I", 31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000)
STATED = {
    "linear light": ([zoo.chunk(b"gAMA", struct.pack(">I", 100_000))], lambda p: srgb(p / 255)),
    "a gamma of 1.8": ([zoo.chunk(b"gAMA", struct.pack(">I", 55_556))], lambda p: srgb((p / 255) ** 1.8)),
    "display p3 by cICP": ([zoo.chunk(b"cICP", bytes((12, 13, 0, 1)))], lambda p: srgb(linear(p) @ P3_TO_SRGB.T)),
    "display p3 by cHRM": (
        [zoo.chunk(b"gAMA", struct.pack(">I", 100_000)), zoo.chunk(b"cHRM", CHROMATICITIES_P3)],
        lambda p: srgb((p / 255) @ P3_TO_SRGB.T),
    ),
    "srgb by cICP": ([zoo.chunk(b"cICP", bytes((1, 13, 0, 1)))], lambda p: p),
    "srgb, which counts before gAMA": (
        [zoo.chunk(b"sRGB", b"\0"), zoo.chunk(b"gAMA", struct.pack(">I", 100_000))],
        lambda p: p,
    ),
    "the usual gamma": ([zoo.chunk(b"gAMA", struct.pack(">I", 45_455))], lambda p: p),
}


@pytest.mark.parametrize("name", STATED)
def test_what_a_png_s_chunks_say_of_its_colours_is_seen_and_published(name: str) -> None:
    chunks, seen = STATED[name]
    pixels = zoo.photo()
    image, encoded = again(zoo.with_png_chunks(zoo.saved(pixels, "PNG"), *chunks))
    assert np.abs(image.pixels - seen(pixels.astype(float))).max() <= 1.01
    assert (np.asarray(opened(encoded)) == pixels).all()
    assert all(chunk in encoded.data for chunk in chunks)


def test_grey_with_a_gamma_is_seen_so() -> None:
    grey = zoo.photo()[..., 0]
    image, _ = again(zoo.with_png_chunks(zoo.saved(grey, "PNG"), zoo.chunk(b"gAMA", struct.pack(">I", 100_000))))
    assert np.abs(image.pixels[..., 1] - srgb(grey / 255)).max() <= 1.01
    assert image.is_grey


@pytest.mark.parametrize(("transfer", "name"), [(16, "PQ"), (18, "HLG")])
def test_hdr_s_transfer_functions_are_refused_by_name(transfer: int, name: str) -> None:
    data = zoo.with_png_chunks(zoo.saved(zoo.photo(), "PNG"), zoo.chunk(b"cICP", bytes((9, transfer, 0, 1))))
    with pytest.raises(UnsupportedFormat, match=f"{name}.*Export a standard"):
        decode(data, zoo.LIMITS)


def hostile_profile(element: bytes) -> bytes:
    """A profile with one tag more."""
    wide = bytearray(zoo.rgb_profile(zoo.DISPLAY_P3_D50, 1.8))
    (count,) = struct.unpack_from(">I", wide, 128)
    end = 132 + 12 * count
    shifted = bytearray(wide[:end]) + struct.pack(">4sII", b"D2B0", len(wide) + 12, len(element)) + wide[end:]
    struct.pack_into(">I", shifted, 128, count + 1)
    for at in range(132, end, 12):
        (offset,) = struct.unpack_from(">I", shifted, at + 4)
        struct.pack_into(">I", shifted, at + 4, offset + 12)
    return bytes(shifted + element)


HOSTILE_PROFILES = {
    "floating-point elements": hostile_profile(b"mpet" + bytes(60)),
    "a table of more than 4 channels": hostile_profile(b"mft2" + bytes(4) + b"\x0f\x03" + bytes(60)),
    "longer than 1 MiB": zoo.rgb_profile(zoo.DISPLAY_P3_D50, 1.8) + np.random.default_rng(1).bytes(2**20),
}


@pytest.mark.parametrize("name", HOSTILE_PROFILES)
def test_a_profile_that_could_cost_hours_is_not_used_and_that_is_said(name: str) -> None:
    pixels = np.random.default_rng(2).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = zoo.saved(pixels, "PNG", icc_profile=HOSTILE_PROFILES[name])
    image = decode(data, type(zoo.LIMITS)(2**22, 10**6))
    assert (image.pixels == pixels).all()
    lost = encode(image.samples, image).lost
    assert any(name in line and "read as sRGB" in line for line in lost)


# ----------------------------------------------------------------------------------------------------------- formats


def tiff(samples: np.ndarray, **options: object) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, samples, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("compression", [None, "lzw", "deflate"])
@pytest.mark.parametrize("shape", [(40, 60), (40, 60, 3), (40, 60, 4)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_tiff_is_published_as_a_png_of_its_depth(
    dtype: type[np.unsignedinteger], shape: tuple[int, ...], compression: str | None
) -> None:
    samples = np.random.default_rng(5).integers(0, np.iinfo(dtype).max + 1, shape).astype(dtype)
    options = {"extrasamples": ["unassalpha"]} if shape[-1] == 4 else {}
    photometric = "minisblack" if len(shape) == 2 else "rgb"
    data = tiff(samples, photometric=photometric, compression=compression, **options)
    image, encoded = again(data)
    assert encoded.extension == "png"
    after = decode(encoded.data, zoo.LIMITS)
    assert after.samples.dtype == dtype
    assert (after.samples == (samples[..., :3] if samples.ndim == 3 else samples)).all()
    if shape[-1] == 4:
        assert (after.alpha == samples[..., 3]).all()
    assert image.source_format == "TIFF"


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_tiff_s_extra_channel_is_what_the_file_says_it_is(dtype: type[np.unsignedinteger]) -> None:
    most = np.iinfo(dtype).max
    colours = zoo.photo().astype(dtype) * dtype(most // 255)
    alpha = np.full((48, 64), most // 2, dtype)
    multiplied = np.dstack([(colours.astype(np.float64) * (most // 2) / most).round().astype(dtype), alpha])
    image = decode(tiff(multiplied, photometric="rgb", extrasamples=["assocalpha"]), zoo.LIMITS)
    assert (image.alpha == alpha).all()
    assert np.abs(image.samples.astype(int) - colours).max() <= 2
    image = decode(tiff(np.dstack([colours, alpha]), photometric="rgb", extrasamples=["unspecified"]), zoo.LIMITS)
    assert image.alpha is None
    assert (image.samples == colours).all()
    assert "channels that are neither colour nor transparency" in image.blocks.lost


def test_a_tiff_s_metadata_orientation_and_resolution_are_carried_over() -> None:
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"/>'
    tags = {0x02BC: xmp, COPYRIGHT: "(c) Example", zoo.ORIENTATION: 6}
    data = zoo.saved(zoo.photo(), "TIFF", tiffinfo=tags, dpi=(300, 300), compression="tiff_lzw")
    _, encoded = again(data)
    published = opened(encoded)
    assert published.size == (48, 64)
    assert published.getexif()[COPYRIGHT] == "(c) Example"
    assert published.getexif()[zoo.ORIENTATION] == 1
    assert not {0x0100, 0x0111, 0x0117, 0x0103} & set(published.getexif())
    assert published.info["dpi"] == pytest.approx((300, 300), abs=0.02)
    assert published.info["xmp"] == xmp
    assert (np.asarray(published) == np.rot90(zoo.photo(), -1)).all()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_turned_tiff_comes_out_upright_at_every_depth(dtype: type[np.unsignedinteger]) -> None:
    samples = zoo.photo().astype(dtype)
    data = tiff(samples, photometric="rgb", extratags=[(zoo.ORIENTATION, 3, 1, 8, True)])
    assert (decode(data, zoo.LIMITS).samples == np.rot90(samples, 1)).all()


REFUSED_TIFFS = {
    "floats": tiff(zoo.photo().astype(np.float32), photometric="rgb"),
    "a raw file": tiff(zoo.photo(), photometric="rgb", subfiletype=1),
    "five channels": tiff(np.zeros((40, 60, 5), np.uint16), photometric="rgb"),
    "several layers": tiff(np.stack([zoo.photo().astype(np.uint16)] * 4), photometric="rgb", volumetric=True),
}


@pytest.mark.parametrize("name", REFUSED_TIFFS)
def test_a_tiff_that_is_no_picture_is_refused_by_name(name: str) -> None:
    with pytest.raises(UnsupportedFormat):
        decode(REFUSED_TIFFS[name], zoo.LIMITS)


def test_a_tiff_that_is_cut_is_truncated() -> None:
    for data in (tiff(zoo.photo(), photometric="rgb"), tiff(zoo.photo().astype(np.uint16), photometric="rgb")):
        with pytest.raises(TruncatedImage):
            decode(data[: len(data) // 2], zoo.LIMITS)


def test_a_gif_s_first_frame_is_published_as_png_and_the_others_are_said_to_be_lost() -> None:
    frames = [Image.fromarray(zoo.photo()), Image.fromarray(zoo.photo()[::-1])]
    data = zoo.saved(frames[0], "GIF", save_all=True, append_images=frames[1:], duration=100)
    image, encoded = again(data)
    assert encoded.extension == "png"
    assert (image.pixels == np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))).all()
    assert encoded.lost == ("1 further frame",)


def test_an_avif_is_published_as_jpeg_upright_with_its_rights() -> None:
    block = zoo.tiff_block([(zoo.ORIENTATION, 3, 1, b"\6\0"), (COPYRIGHT, 2, 12, b"(c) Example\0")])
    data = zoo.saved(zoo.photo(), "AVIF", quality=95, subsampling="4:4:4", exif=b"Exif\0\0" + block)
    image, encoded = again(data)
    published = opened(encoded)
    assert (encoded.extension, published.size) == ("jpg", (48, 64))
    assert published.getexif()[COPYRIGHT] == "(c) Example"
    assert np.abs(image.pixels.astype(int) - np.rot90(zoo.photo(), -1)).mean() < 4


def test_a_transparent_avif_is_published_as_png() -> None:
    rgba = np.dstack([zoo.photo(), zoo.photo()[..., 0]])
    image, encoded = again(zoo.saved(rgba, "AVIF", quality=100))
    assert encoded.extension == "png"
    assert np.abs(image.alpha.astype(int) - rgba[..., 3]).mean() < 2


def test_a_heic_is_published_as_jpeg_with_its_rights() -> None:
    image, encoded = again(zoo.HEIC)
    assert image.source_format == "HEIC"
    assert np.abs(image.pixels.astype(int) - (200, 40, 40)).max() <= 3
    published = opened(encoded)
    assert (encoded.extension, published.size) == ("jpg", (64, 48))
    assert published.getexif()[COPYRIGHT] == "(c) Example"


def test_a_heic_that_crashes_its_decoder_is_refused_and_the_worker_lives_on() -> None:
    at = zoo.HEIC.index(b"Exif") - 3  # found among damaged files; the binding ends with a segmentation fault
    for damaged in (zoo.HEIC[:252] + b"\x25\xb1\xc7\x33" + zoo.HEIC[256:], zoo.HEIC[:at], zoo.HEIC[:-40]):
        with pytest.raises(TruncatedImage):
            decode(damaged, zoo.LIMITS)


def test_an_hdr_avif_is_refused_by_name() -> None:
    data = zoo.saved(zoo.photo(), "AVIF")
    at = data.index(b"colrnclx") + 8
    hdr = data[:at] + struct.pack(">HHH", 9, 16, 9) + data[at + 6 :]
    with pytest.raises(UnsupportedFormat, match="PQ"):
        decode(hdr, zoo.LIMITS)


@pytest.mark.parametrize("file_format", ["TIFF", "GIF", "AVIF"])
def test_the_pixel_limit_holds_for_every_format_before_decoding(file_format: str) -> None:
    data = zoo.saved(zoo.photo(40, 50), file_format)
    assert decode(data, type(zoo.LIMITS)(10**6, 2000)).pixels.shape == (40, 50, 3)
    with pytest.raises(Exception, match="the limit is 1,999"):
        decode(data, type(zoo.LIMITS)(10**6, 1999))
