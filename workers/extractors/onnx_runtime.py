"""An ONNX file as ONNX Runtime computes it: in the file's own precision, without gradients."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import torch
import torch.nn.functional as F

from tasks.errors import InvalidRequest
from tasks.storage import ObjectStore
from workers.extractors.network import normalised
from workers.extractors.onnx_file import is_channels_last
from workers.extractors.registry import NetworkExtractor, located

__all__ = ["OnnxRuntime"]

_TYPES: Final = {"tensor(uint8)": np.uint8, "tensor(float)": np.float32, "tensor(float16)": np.float16}


class OnnxRuntime:
    """Behind :class:`workers.extractors.base.FeatureSource`. With int8 weights and activations (QDQ) it takes a sixth
    of the time that :class:`NetworkExtractor` takes in float32; its features are close to that one's (cosine 0.99 for
    SSCD), not equal: for what is only searched among, never for what is registered, activated or verified.

    Raises:
        InvalidRequest: the extractor is no ONNX file, or ONNX Runtime is not installed or refuses it.
    """

    def __init__(self, name: str, extractor: NetworkExtractor, store: ObjectStore | None = None) -> None:
        """The file that `extractor` was loaded from, by the same name."""
        spec, path, digest = located(name, store)
        if spec.architecture != "onnx":
            raise InvalidRequest(f"ONNX Runtime runs ONNX files, and {spec.name} is none: leave out --fast-references.")
        self.sha256 = f"{digest} by ONNX Runtime"
        self.input_size = extractor.input_size
        self.dimension = extractor.dimension
        self.device = torch.device("cpu")
        self._session = _session(str(path))
        self._input = self._session.get_inputs()[0]
        self._normalised = spec.normalise != "none"

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        fed = self._as_the_file_takes_them(images)
        at_once = self._input.shape[0] if isinstance(self._input.shape[0], int) else len(fed)
        found = [self._features(fed[start : start + at_once], at_once) for start in range(0, len(fed), at_once)]
        return F.normalize(torch.from_numpy(np.concatenate(found)).float())

    def _features(self, some: np.ndarray[Any, Any], at_once: int) -> np.ndarray[Any, Any]:
        """Of some images, repeated where the file takes batches of one size only."""
        filled = np.resize(some, (at_once, *some.shape[1:]))
        features: np.ndarray[Any, Any] = self._session.run(None, {self._input.name: filled})[0]
        return features[: len(some)]

    def _as_the_file_takes_them(self, images: torch.Tensor) -> np.ndarray[Any, Any]:
        kind = _TYPES[self._input.type]
        if kind is np.uint8:
            images = (images * 255.0).round()
        elif self._normalised:
            images = normalised(images)
        if is_channels_last(self._input.shape):
            images = images.permute(0, 2, 3, 1)
        return images.contiguous().numpy().astype(kind)


def _session(path: str) -> Any:
    try:
        import onnxruntime  # noqa: PLC0415  # of the extra `evaluation`
    except ModuleNotFoundError:
        raise InvalidRequest(
            "--fast-references needs ONNX Runtime: pip install 'active-image-indexing[worker,evaluation]'."
        ) from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # of many classes, which have no common base
        raise InvalidRequest(f"ONNX Runtime refuses {path}: {str(error).splitlines()[0][:200]}") from error
    if session.get_inputs()[0].type not in _TYPES:
        raise InvalidRequest(f"{path} takes images as {session.get_inputs()[0].type}: leave out --fast-references.")
    return session
