"""How a person names an extractor: ``[ARCHITECTURE@]ADDRESS[#size=SIDE&sha256=DIGEST&normalise=…]``, or just
``compact``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qs

from tasks.errors import ExtractorMissing
from tasks.names import DIGEST_PATTERN
from workers.extractors.backbones import POOLINGS, SSCD

__all__ = ["Spec", "parse_spec"]

_ARCHITECTURE = re.compile(r"^([a-z0-9_]+(?:[+-][a-z0-9_]+)?)@(.+)$", re.DOTALL)
_BY_SUFFIX: Final = {".safetensors": "compact", ".torchvision.pt": "sscd", ".torchscript.pt": "torchscript",
                     ".onnx": "onnx"}  # fmt: skip
NORMALISATIONS: Final = ("imagenet", "none")
_SSCD_SIDE: Final = 288  # the square that SSCD's and the paper's own figures were measured with
_TORCHVISION_SIDE: Final = 224


@dataclass(frozen=True)
class Spec:
    """What to load and from where.

    Attributes:
        architecture: ``compact``, ``sscd``, ``sscd-large``, ``onnx``, ``torchscript``, or ``BACKBONE+gem`` /
            ``BACKBONE+avg``.
        address: where the weights are.
        side: of the square input, in pixels; 0 where the architecture fixes it.
        sha256: what the digest of the weights has to be, if that is known.
        normalise: colours that an ONNX file expects: ``imagenet`` or ``none``; None where it is not said.
    """

    architecture: str
    address: str
    side: int
    sha256: str | None
    normalise: str | None = None

    @property
    def name(self) -> str:
        """What the extractor is called in manifests: weights are told apart by digest, all else is in the name."""
        architecture = f"{self.architecture}-unnormalised" if self.normalise == "none" else self.architecture
        return f"{architecture}-{self.side}" if self.side else architecture


def parse_spec(text: str) -> Spec:
    """Read a specification; raises ExtractorMissing, with the forms that are understood."""
    body, _, fragment = text.partition("#")
    match = _ARCHITECTURE.match(body)
    architecture, address = match.groups() if match else (_guessed(body), body)
    options = {key: values[-1] for key, values in parse_qs(fragment, keep_blank_values=True).items()}
    digest = options.pop("sha256", None)
    side = options.pop("size", None)
    normalise = options.pop("normalise", None) if architecture == "onnx" else None
    if (
        options
        or normalise not in (None, *NORMALISATIONS)
        or (digest and not re.fullmatch(DIGEST_PATTERN, digest))
        or (side and not side.isdecimal())
    ):
        raise _not_understood(text)
    return Spec(architecture, address, int(side) if side else _usual_side(architecture, text), digest, normalise)


def _guessed(address: str) -> str:
    for suffix, architecture in _BY_SUFFIX.items():
        if address.split("?", maxsplit=1)[0].endswith(suffix):
            return architecture
    raise _not_understood(address)


def _usual_side(architecture: str, text: str) -> int:
    if architecture == "compact":
        return 0
    if architecture in SSCD or architecture in ("torchscript", "onnx"):
        return _SSCD_SIDE
    if architecture.partition("+")[2] in POOLINGS:
        return _TORCHVISION_SIDE
    raise _not_understood(text)


def _not_understood(text: str) -> ExtractorMissing:
    return ExtractorMissing(
        f"No extractor is named {text!r}: use `compact`, or [ARCHITECTURE@]ADDRESS[#size=SIDE&sha256=DIGEST]. "
        "ADDRESS is a path, s3://BUCKET/KEY or a URL; ARCHITECTURE is compact, sscd, sscd-large, onnx, torchscript, or "
        "a torchvision network and its pooling, as in resnet50+gem. It may be left out for files that end in "
        ".safetensors, .torchvision.pt, .onnx or .torchscript.pt. ONNX files also take #normalise=imagenet or none."
    )
