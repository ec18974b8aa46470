"""Any of Pillow's colour modes to 8-bit sRGB, with transparency set aside; and the samples as the file has them."""

from __future__ import annotations

import io
import logging
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from workers.images.model import Pixels, Samples
from workers.images.profile import problem_of
from workers.images.transfer import transfer_of

logger = logging.getLogger(__name__)

# Relative colorimetric with black point compensation keeps in-gamut colours exact and shadows open; it is what
# photographs are usually converted with. A profile without that table falls back to its own default (lcms2).
_INTENT = ImageCms.Intent.RELATIVE_COLORIMETRIC
_FLAGS = ImageCms.Flags.BLACKPOINTCOMPENSATION

# A profile that moves no probe colour by more than this is sRGB by another maker; measured: 1 for the common 3144-byte
# "sRGB IEC61966-2.1". Then the pixels stay as they are, which also saves 33 ms a megapixel.
_SRGB_TOLERANCE = 1


# When a change is applied to a sample, its level is worth at most so many of sRGB's, and at least such a part of one.
_MOST_TONE = 8.0


class Stated(NamedTuple):
    """What a file says of its colours: an ICC profile, and PNG's chunks cICP, sRGB, gAMA and cHRM."""

    profile: bytes | None = None
    chunks: Mapping[bytes, bytes] = {}


class Colours(NamedTuple):
    """``srgb`` is (H, W, 3) uint8; ``own``, ``profile`` and ``tone`` as :class:`workers.images.model.DecodedImage` has
    them; ``problem`` says why a profile was not used."""

    srgb: Pixels
    own: Samples | None
    profile: bytes | None
    problem: str | None
    tone: NDArray[np.float32] | None = None


def to_srgb(own: Samples, stated: Stated) -> Colours:
    """Samples (H, W) grey, (H, W, 3) RGB or (H, W, 4) CMYK, of 8 or 16 bits, as sRGB.

    An ICC profile is applied where it fits the image; a broken one, or one for another colour space, counts as sRGB.
    Without a profile, CMYK is converted by the plain formula (no ink is white), and everything else is sRGB unless
    PNG's chunks say otherwise.

    Raises:
        UnsupportedFormat: the colours are those of HDR video.
    """
    colours = _converted(own, stated)
    if colours.own is None or _is_cmyk(own):
        return colours
    greys = np.arange(256, dtype=np.uint8)[np.newaxis]
    ramp = greys if own.ndim == 2 else np.repeat(greys[..., np.newaxis], 3, axis=2)
    return colours._replace(tone=_tone(_converted(ramp, stated).srgb))


def _tone(shown: Pixels) -> NDArray[np.float32] | None:
    """From the ramp of greys as sRGB (1, 256, 3): by how much a sample changes for one level of sRGB."""
    curve = shown[0].astype(np.float64).mean(axis=1)
    if np.abs(curve - np.arange(256)).max() <= _SRGB_TOLERANCE:
        return None
    smooth = np.convolve(np.pad(curve, 4, mode="reflect", reflect_type="odd"), np.full(9, 1 / 9), mode="valid")
    slope: NDArray[np.float64] = np.gradient(smooth)
    return (1 / slope.clip(1 / _MOST_TONE, _MOST_TONE)).astype(np.float32)


def _converted(own: Samples, stated: Stated) -> Colours:
    transfer = transfer_of(stated.chunks, stated.profile is not None)
    if transfer is not None:
        return Colours(transfer.to_srgb(own), own, None, None)
    problem = problem_of(stated.profile) if stated.profile else None
    if stated.profile is None or problem:
        return _without_profile(own, problem)
    image = _image_of(own)
    converted = _apply_profile(image, stated.profile)
    if not converted.understood:
        return _without_profile(own, "not one of this picture's kind of colours")
    if converted.image is image and _is_plain(own):
        return Colours(_writable(own), None, stated.profile, None)
    return Colours(np.array(converted.image.convert("RGB")), own, stated.profile, None)


def _without_profile(own: Samples, problem: str | None) -> Colours:
    if _is_plain(own):
        return Colours(_writable(own), None, None, problem)
    return Colours(np.array(_image_of(own).convert("RGB")), own, None, problem)


def _writable(own: Samples) -> Pixels:
    """The same samples; some readers hand over memory that must not be changed."""
    return np.require(own, np.uint8, "W")


def _image_of(own: Samples) -> Image.Image:
    return Image.fromarray(_eight_bits(own), "CMYK") if _is_cmyk(own) else Image.fromarray(_eight_bits(own))


def own_samples(image: Image.Image) -> Samples:
    """The colour channels of a loaded image in mode 1, L, LA, I;16, P, RGB, RGBA or CMYK: (H, W), or with channels.

    Alpha is dropped, not blended: colours under transparent pixels stay.
    """
    if image.mode in ("L", "RGB", "CMYK", "I;16"):
        return np.array(image)
    if image.mode == "LA":
        return np.array(image.getchannel("L"))
    return np.array(_bare(image).convert("L" if image.mode == "1" else "RGB"))


def alpha_of(image: Image.Image, bit_depth: int) -> Samples | None:
    """(H, W) from an alpha channel or PNG's tRNS, as deep as the samples; None without either.

    Args:
        bit_depth: of the PNG, per sample.
    """
    if image.mode in ("LA", "RGBA"):
        return np.array(image.getchannel("A"))
    key = image.info.get("transparency")
    if image.mode == "P" and isinstance(key, (int, bytes)):
        indices: Pixels = np.asarray(image)
        return _palette_alpha(key)[indices]
    if image.mode == "RGB" and isinstance(key, tuple):
        return transparent_where((np.asarray(image) == key).all(axis=2))
    if image.mode == "I;16" and isinstance(key, int):
        return transparent_where(np.asarray(image) == key).astype(np.uint16) * np.uint16(257)
    if image.mode in ("1", "L") and isinstance(key, int):
        return transparent_where(_grey(image) == _scaled_key(key, image.mode, bit_depth))
    return None


def transparent_where(mask: NDArray[np.bool_]) -> Pixels:
    """uint8: 0 where the mask is true, 255 elsewhere."""
    return np.where(mask, 0, 255).astype(np.uint8)


def _palette_alpha(key: int | bytes) -> Pixels:
    """uint8 (256,): the transparency of each palette entry; Pillow gives the one transparent index, or all as bytes."""
    table = np.full(256, 255, dtype=np.uint8)
    if isinstance(key, int):
        table[key : key + 1] = 0
    else:
        table[: len(key)] = np.frombuffer(key, dtype=np.uint8)[:256]
    return table


def _scaled_key(key: int, mode: str, bit_depth: int) -> int:
    """tRNS holds the sample as stored; Pillow has spread 2 and 4 bits over 0–255 (and mode 1's key itself)."""
    return key * 255 // (2**bit_depth - 1) if mode == "L" else key


def _grey(image: Image.Image) -> Pixels:
    return np.asarray(image.convert("L") if image.mode == "1" else image)


def _is_cmyk(samples: Samples) -> bool:
    return samples.ndim == 3 and samples.shape[2] == 4


def _is_plain(samples: Samples) -> bool:
    """Whether samples are sRGB pixels, if nothing is said of their colours."""
    return samples.ndim == 3 and samples.shape[2] == 3 and samples.dtype == np.uint8


def _eight_bits(samples: Samples) -> Pixels:
    """The nearest 8-bit values of 16-bit samples: v / 257, rounded exactly for all 65,536 values."""
    if samples.dtype == np.uint8:
        return samples.astype(np.uint8, copy=False)
    return ((samples.astype(np.uint32) * 255 + 32_895) >> 16).astype(np.uint8)


def _bare(image: Image.Image) -> Image.Image:
    """The same image without its transparency note, which Pillow would try to carry through conversions."""
    if "transparency" in image.info:
        image = image.copy()
        del image.info["transparency"]
    return image


class _Applied(NamedTuple):
    image: Image.Image
    understood: bool


def _apply_profile(image: Image.Image, profile: bytes) -> _Applied:
    """RGB after the conversion; the same image where the profile is sRGB or cannot be used."""
    try:
        if image.mode == "L":
            grey = _grey_converted(image, _transform(profile, "L", _FLAGS | ImageCms.Flags.NOOPTIMIZE))
            return _Applied(grey, understood=True)
        transform = _transform(profile, image.mode, _FLAGS)
        same = image.mode == "RGB" and _is_identity(transform)
        return _Applied(image if same else transform.apply(image), understood=True)
    except (ImageCms.PyCMSError, OSError, ValueError) as error:
        logger.info("ICC profile not usable, image read as sRGB: %s", error, extra={"profile_bytes": len(profile)})
        return _Applied(image, understood=False)


def _transform(profile: bytes, mode: str, flags: ImageCms.Flags) -> ImageCms.ImageCmsTransform:
    # Built for each image: handles shared by threads would need a lock, and building takes about a millisecond.
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    target = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    return ImageCms.ImageCmsTransform(source, target, mode, "RGB", _INTENT, flags=flags)


def _grey_converted(image: Image.Image, transform: ImageCms.ImageCmsTransform) -> Image.Image:
    """By a table of the 256 greys: lcms2's own grid is ten levels off in the shadows of a linear profile."""
    greys = np.arange(256, dtype=np.uint8)
    table: Pixels = np.asarray(transform.apply(Image.fromarray(greys[np.newaxis])))[0]
    if _differ_by(table, greys[:, np.newaxis]) <= _SRGB_TOLERANCE:
        return image
    indices: Pixels = np.asarray(image)
    return Image.fromarray(table[indices])


def _is_identity(transform: ImageCms.ImageCmsTransform) -> bool:
    """Whether a grid of 17³ colours comes out as it went in."""
    levels = np.linspace(0, 255, 17).astype(np.uint8)
    probe = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(17, -1, 3)
    after: Pixels = np.asarray(transform.apply(Image.fromarray(probe)))
    return _differ_by(after, probe) <= _SRGB_TOLERANCE


def _differ_by(a: Pixels, b: Pixels) -> int:
    return int(np.abs(a.astype(np.int16) - b.astype(np.int16)).max())
