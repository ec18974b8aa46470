"""What PNG's cICP, gAMA and cHRM say of its colours (PNG third edition, 4.3; code points of ITU-T H.273)."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tasks.errors import UnsupportedFormat
from workers.images.strips import strips

__all__ = ["Transfer", "check_not_hdr", "transfer_of"]

Floats = NDArray[np.float64]
_Curve = Callable[[Floats], Floats]

_D65: Final = (0.3127, 0.3290)
# Chromaticities of red, green and blue, and of white.
_SRGB: Final = ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06), _D65)
_PRIMARIES: Final = {
    1: _SRGB,
    5: ((0.64, 0.33), (0.29, 0.60), (0.15, 0.06), _D65),
    6: ((0.63, 0.34), (0.31, 0.595), (0.155, 0.07), _D65),
    7: ((0.63, 0.34), (0.31, 0.595), (0.155, 0.07), _D65),
    9: ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046), _D65),
    11: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), (0.314, 0.351)),
    12: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), _D65),
}
_BRADFORD: Final = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
_HDR: Final = {16: "PQ (SMPTE ST 2084)", 18: "HLG (ARIB STD-B67)"}
_UNSPECIFIED: Final = 2
_SAME: Final = 0.002  # chromaticities that differ by less are written with fewer digits
_SAME_GAMMA: Final = 0.05  # libpng's own threshold: exponents closer to each other need no correction


@dataclass(frozen=True)
class Transfer:
    """From samples in [0, 1] to linear light, and from its primaries to those of sRGB by ``matrix`` (3, 3)."""

    to_linear: _Curve
    matrix: Floats

    def to_srgb(self, samples: NDArray[np.uint8] | NDArray[np.uint16]) -> NDArray[np.uint8]:
        """(H, W) or (H, W, 3) → (H, W, 3) sRGB."""
        linear = self.to_linear(np.linspace(0, 1, int(np.iinfo(samples.dtype).max) + 1)).astype(np.float32)
        encode = _srgb_table()
        matrix = self.matrix.T.astype(np.float32)
        result = np.empty((*samples.shape[:2], 3), np.uint8)
        for rows in strips(*samples.shape[:2]):
            light = linear[samples[rows]]
            light = light @ matrix if light.ndim == 3 else light[..., np.newaxis]
            result[rows] = encode[(light.clip(0, 1) * 65535 + 0.5).astype(np.uint16)]
        return result


def check_not_hdr(transfer: int) -> None:
    """Raises UnsupportedFormat for the transfer functions of HDR video, whose colours no 8-bit sRGB can show."""
    if transfer in _HDR:
        raise UnsupportedFormat(
            f"The image's brightness is coded as {_HDR[transfer]}, for HDR screens, which this system does not read. "
            "Export a standard (SDR) version and resubmit it."
        )


def transfer_of(chunks: Mapping[bytes, bytes], has_profile: bool) -> Transfer | None:
    """What the chunk that counts says: cICP before iCCP, sRGB, gAMA with cHRM; None where that is sRGB, or a profile.

    Raises:
        UnsupportedFormat: the transfer function is one of HDR's, or none that is known.
    """
    found = _of_cicp(chunks.get(b"cICP", b""))
    if found is not None:
        return None if _is_srgb(found) else found
    if has_profile or b"sRGB" in chunks:
        return None
    return _of_gamma(chunks.get(b"gAMA", b""), chunks.get(b"cHRM", b""))


def _is_srgb(transfer: Transfer) -> bool:
    return transfer.to_linear is _srgb_to_linear and np.allclose(transfer.matrix, np.eye(3), atol=_SAME)


def _of_cicp(body: bytes) -> Transfer | None:
    if len(body) != 4:
        return None
    primaries, transfer, matrix, full_range = body
    check_not_hdr(transfer)
    if _UNSPECIFIED in (primaries, transfer):
        return None
    if primaries not in _PRIMARIES or transfer not in _CURVES or matrix or full_range != 1:
        raise UnsupportedFormat(
            f"The PNG's colours (cICP {primaries}/{transfer}/{matrix}/{full_range}) are not known to this system. "
            "Export the image in sRGB, or with an ICC profile."
        )
    return Transfer(_CURVES[transfer], _to_srgb(_PRIMARIES[primaries]))


def _of_gamma(gamma: bytes, chromaticities: bytes) -> Transfer | None:
    if len(gamma) != 4:
        return None
    exponent = int.from_bytes(gamma, "big") / 100_000
    if not 0.05 <= exponent <= 5:
        return None
    points = _SRGB
    if len(chromaticities) == 32:
        white, *colours = [(x / 100_000, y / 100_000) for x, y in struct.iter_unpack(">II", chromaticities)]
        if all(y > 0 for _, y in (white, *colours)) and _area(colours) > 0.01:
            points = (colours[0], colours[1], colours[2], white)
    same_points = np.abs(np.array(points) - np.array(_SRGB)).max() <= _SAME
    if same_points and abs(exponent * 2.2 - 1) <= _SAME_GAMMA:
        return None
    return Transfer(lambda samples: samples ** (1 / exponent), np.eye(3) if same_points else _to_srgb(points))


def _area(triangle: list[tuple[float, float]]) -> float:
    (ax, ay), (bx, by), (cx, cy) = triangle
    return abs((bx - ax) * (cy - ay) - (cx - ax) * (by - ay)) / 2


def _to_srgb(points: tuple[tuple[float, float], ...]) -> Floats:
    """Linear light of these primaries and white to that of sRGB; another white is adapted to (Bradford)."""
    source, target = _to_xyz(points), _to_xyz(_SRGB)
    cones, wanted = _BRADFORD @ source.sum(axis=1), _BRADFORD @ target.sum(axis=1)
    adapted = np.linalg.inv(_BRADFORD) @ np.diag(wanted / cones) @ _BRADFORD
    matrix: Floats = np.linalg.inv(target) @ adapted @ source
    return matrix


def _to_xyz(points: tuple[tuple[float, float], ...]) -> Floats:
    columns = np.array([[x / y, 1, (1 - x - y) / y] for x, y in points]).T
    matrix: Floats = columns[:, :3] * np.linalg.solve(columns[:, :3], columns[:, 3])
    return matrix


def _srgb_to_linear(samples: Floats) -> Floats:
    return np.where(samples <= 0.04045, samples / 12.92, ((samples + 0.055) / 1.055) ** 2.4)


def _bt709_to_linear(samples: Floats) -> Floats:
    return np.where(samples < 0.081, samples / 4.5, ((samples + 0.099) / 1.099) ** (1 / 0.45))


def _srgb_table() -> NDArray[np.uint8]:
    """uint8 (65,536,): linear light to sRGB."""
    light = np.linspace(0, 1, 65_536)
    encoded = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    table: NDArray[np.uint8] = np.round(255 * encoded).astype(np.uint8)
    return table


_CURVES: Final[dict[int, _Curve]] = {
    1: _bt709_to_linear,
    4: lambda samples: samples**2.2,
    5: lambda samples: samples**2.8,
    6: _bt709_to_linear,
    8: lambda samples: samples,
    13: _srgb_to_linear,
    14: _bt709_to_linear,
    15: _bt709_to_linear,
}
