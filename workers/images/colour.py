"""Any of Pillow's colour modes to 8-bit sRGB, with transparency set aside."""

from __future__ import annotations

import io
import logging
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from workers.images.model import Pixels

logger = logging.getLogger(__name__)

# Relative colorimetric with black point compensation keeps in-gamut colours exact and shadows open; it is what
# photographs are usually converted with. A profile without that table falls back to its own default (lcms2).
_INTENT = ImageCms.Intent.RELATIVE_COLORIMETRIC
_FLAGS = ImageCms.Flags.BLACKPOINTCOMPENSATION

# A profile that moves no probe colour by more than this is sRGB by another maker; measured: 1 for the common 3144-byte
# "sRGB IEC61966-2.1". Then the pixels stay as they are, which also saves 33 ms a megapixel.
_SRGB_TOLERANCE = 1


# The largest profile that is published again: cameras' and monitors' have some kilobytes, scanners' with tables a few
# hundred.
_MAX_PROFILE_BYTES = 1 << 20


class Colours(NamedTuple):
    """``srgb`` (H, W, 3) uint8; ``profile`` and ``native`` as in :class:`workers.images.model.DecodedImage`."""

    srgb: Pixels
    profile: bytes | None
    native: Pixels | None


def to_srgb(image: Image.Image, profile: bytes | None) -> Colours:
    """A loaded image in mode 1, L, LA, I;16, P, RGB, RGBA or CMYK, as sRGB.

    Alpha is dropped, not blended: colours under transparent pixels stay.
    The ICC ``profile`` is applied where it fits the image; a broken one, or one for another colour space, counts
    as sRGB. Without a profile, CMYK is converted by the plain formula (no ink is white), and everything else is sRGB.
    """
    opaque = _opaque(image)
    if not profile:
        return Colours(np.array(opaque.convert("RGB")), None, None)
    converted = _apply_profile(opaque, profile)
    srgb: Pixels = np.array(converted.image.convert("RGB"))
    if not converted.understood or opaque.mode != "RGB" or len(profile) > _MAX_PROFILE_BYTES:
        return Colours(srgb, None, None)
    native: Pixels | None = None if converted.image is opaque else np.array(opaque)
    return Colours(srgb, ImageCms.ImageCmsProfile(io.BytesIO(profile)).tobytes(), native)


def alpha_of(image: Image.Image, bit_depth: int) -> Pixels | None:
    """uint8 (H, W) from an alpha channel or PNG's tRNS, None without either; ``bit_depth`` is the PNG's per sample."""
    if image.mode in ("LA", "RGBA"):
        return np.array(image.getchannel("A"))
    key = image.info.get("transparency")
    if image.mode == "P" and isinstance(key, (int, bytes)):
        indices: Pixels = np.asarray(image)
        return _palette_alpha(key)[indices]
    if image.mode == "RGB" and isinstance(key, tuple):
        # Of 16-bit samples Pillow keeps the high byte.
        colour = [sample >> 8 if bit_depth == 16 else sample for sample in key]
        return _transparent_where((np.asarray(image) == colour).all(axis=2))
    if image.mode in ("1", "L", "I;16") and isinstance(key, int):
        return _transparent_where(_grey(image) == _scaled_key(key, image.mode, bit_depth))
    return None


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


def _transparent_where(mask: NDArray[np.bool_]) -> Pixels:
    return np.where(mask, 0, 255).astype(np.uint8)


def _grey(image: Image.Image) -> NDArray[np.uint8] | NDArray[np.uint16]:
    return np.asarray(image.convert("L") if image.mode == "1" else image)


def _opaque(image: Image.Image) -> Image.Image:
    """The colour channels alone, in a mode an ICC profile can describe: L, RGB or CMYK."""
    if image.mode in ("L", "RGB", "CMYK"):
        return _bare(image)
    if image.mode == "LA":
        return image.getchannel("L")
    if image.mode == "I;16":
        # Pillow's own conversion clips at 255. This rounds v / 257 to the nearest, exactly, for all 65,536 values.
        wide = np.asarray(image).astype(np.uint32)
        return Image.fromarray(((wide * 255 + 32_895) >> 16).astype(np.uint8))
    return _bare(image).convert("L" if image.mode == "1" else "RGB")


def _bare(image: Image.Image) -> Image.Image:
    """The same image without its transparency note, which Pillow would try to carry through conversions."""
    if "transparency" in image.info:
        image = image.copy()
        del image.info["transparency"]
    return image


class _Converted(NamedTuple):
    image: Image.Image
    understood: bool


def _apply_profile(image: Image.Image, profile: bytes) -> _Converted:
    """RGB after the conversion; the same image where the profile is sRGB or cannot be used."""
    try:
        if image.mode == "L":
            grey = _grey_converted(image, _transform(profile, "L", _FLAGS | ImageCms.Flags.NOOPTIMIZE))
            return _Converted(grey, understood=True)
        transform = _transform(profile, image.mode, _FLAGS)
        same = image.mode == "RGB" and _is_identity(transform)
        return _Converted(image if same else transform.apply(image), understood=True)
    except (ImageCms.PyCMSError, OSError, ValueError) as error:
        logger.info("ICC profile not usable, image read as sRGB: %s", error, extra={"profile_bytes": len(profile)})
        return _Converted(image, understood=False)


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
