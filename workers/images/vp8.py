"""The quality of a lossy WebP, from the header of its key frame (RFC 6386, sections 7 and 9)."""

from __future__ import annotations

from typing import Final

__all__ = ["quality_of"]

_HEADER_BYTES: Final = 10
_MAX_INDEX: Final = 127


class _Bits:
    """RFC 6386, section 7.3, for probabilities of one half: the header uses no others."""

    def __init__(self, data: bytes) -> None:
        self._data, self._next = data, 2
        self._value, self._range, self._shifted = int.from_bytes(data[:2], "big"), 255, 0

    def flag(self) -> bool:
        split = 1 + ((self._range - 1) >> 1)
        found = self._value >= split << 8
        if found:
            self._range, self._value = self._range - split, self._value - (split << 8)
        else:
            self._range = split
        while self._range < 128:
            self._value, self._range, self._shifted = self._value << 1, self._range << 1, self._shifted + 1
            if self._shifted == 8:
                self._shifted = 0
                self._value |= self._data[self._next] if self._next < len(self._data) else 0
                self._next += 1
        return found

    def number(self, bits: int) -> int:
        value = 0
        for _ in range(bits):
            value = value << 1 | self.flag()
        return value

    def signed(self, bits: int) -> int:
        """An optional number with a sign behind it; 0 when it is not there."""
        if not self.flag():
            return 0
        value = self.number(bits)
        return -value if self.flag() else value


def quality_of(frame: bytes) -> int | None:
    """0 to 100 as libwebp counts, from the mean quantiser index of a frame's segments; None for no key frame."""
    if len(frame) < _HEADER_BYTES + 16 or frame[3:6] != b"\x9d\x01\x2a" or frame[0] & 1:
        return None
    bits = _Bits(frame[_HEADER_BYTES : _HEADER_BYTES + 256])
    bits.number(2)  # colour space, clamping
    indices = _segments(bits) if bits.flag() else None
    bits.number(1 + 6 + 3)  # the loop filter
    if bits.flag() and bits.flag():
        for _ in range(8):
            bits.signed(6)
    bits.number(2)  # partitions
    base = bits.number(7)
    absolute, values = indices or (False, [0])
    index = sum(values) / len(values) + (0 if absolute else base)
    return _quality(min(max(index, 0), _MAX_INDEX))


def _segments(bits: _Bits) -> tuple[bool, list[int]]:
    """Whether the segments' quantiser indices replace the frame's, and these."""
    has_map, has_values = bits.flag(), bits.flag()
    absolute, values = False, [0]
    if has_values:
        absolute = bits.flag()
        values = [bits.signed(7) for _ in range(4)]
        for _ in range(4):
            bits.signed(6)
    if has_map:
        for _ in range(3):
            if bits.flag():
                bits.number(8)
    return absolute, values


def _quality(index: float) -> int:
    """The inverse of libwebp's QualityToCompression."""
    linear = (1 - index / _MAX_INDEX) ** 3
    return round(100 * (linear * 1.5 if linear < 0.5 else (linear + 1) / 2))
