"""Small ONNX files, made operator by operator."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

__all__ = ["SIDE", "Graph", "convolutional"]

SIDE: Final = 32


class Graph:
    """An ONNX file in the making: each operator's output is what the next one takes."""

    def __init__(self, seed: int = 0, dtype: type = np.float32) -> None:
        self.random, self.dtype = np.random.default_rng(seed), dtype
        self.nodes: list[Any] = []
        self.weights: list[Any] = []
        self.last = "image"

    def constant(self, value: Any) -> str:
        name = f"constant_{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def draw(self, *shape: int) -> str:
        """Weights, as a file of this kind keeps them."""
        scale = max(float(np.prod(shape[1:])), 16.0) ** -0.5
        name = self.constant((self.random.normal(size=shape) * scale).astype(self.dtype))
        return name if self.dtype == np.float32 else self.node("Cast", [name], to=TensorProto.FLOAT)

    def node(self, op: str, inputs: Sequence[str], **attributes: Any) -> str:
        name = f"value_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [name], **attributes))
        return name

    def then(self, op: str, *others: Any, **attributes: Any) -> Graph:
        """One more operator, of the last value and of constants or names."""
        inputs = [o if isinstance(o, str) else self.constant(o) for o in others]
        self.last = self.node(op, [self.last, *inputs], **attributes)
        return self

    def quantised_weights(self, *shape: int) -> str:
        values = self.constant(self.random.integers(-128, 128, shape, dtype=np.int8))
        scale = self.constant(self.random.uniform(1e-3, 2e-3, shape[0]).astype(np.float32))
        return self.node("DequantizeLinear", [values, scale, self.constant(np.zeros(shape[0], np.int8))], axis=0)

    def through_bytes(self, scale: float, zero: int) -> Graph:
        """A rounding of activations, as a quantiser leaves behind."""
        pair = [self.constant(np.float32(scale)), self.constant(np.uint8(zero))]
        return self.then("QuantizeLinear", *pair).then("DequantizeLinear", *pair)

    def gem(self) -> Graph:
        self.then("Clip", np.float32(1e-6), "").then("Pow", np.float32(3))
        return self.then("ReduceMean", axes=[2, 3], keepdims=0).then("Pow", np.float32(1 / 3))

    def model(self, *, of_bytes: bool = False, batch: int | str = "batch") -> Any:
        shape = [batch, "height", "width", 3] if of_bytes else [batch, 3, "height", "width"]
        kind = TensorProto.UINT8 if of_bytes else TensorProto.FLOAT
        graph = helper.make_graph(
            self.nodes, "network", [helper.make_tensor_value_info("image", kind, shape)],
            [helper.make_tensor_value_info(self.last, TensorProto.FLOAT, ["batch", "dimension"])], self.weights,
        )  # fmt: skip
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19 if of_bytes else 17)], ir_version=8)

    def save(self, path: Path, **options: Any) -> Path:
        onnx.save(self.model(**options), path)
        return path


def convolutional(dtype: type = np.float32) -> Graph:
    """A network with a residual block, batch norms, GeM and a projection."""
    g = Graph(dtype=dtype)
    g.then("Conv", g.draw(16, 3, 3, 3), g.draw(16), strides=[2, 2], pads=[1, 1, 1, 1])
    positive = np.full(16, 1.3, np.float32)
    g.then("BatchNormalization", positive, g.draw(16), g.draw(16), positive).then("Relu")
    g.then("MaxPool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    shortcut = g.last
    g.then("Conv", g.draw(16, 4, 3, 3), group=4, auto_pad="SAME_UPPER").then("HardSwish").then("Add", shortcut)
    return g.gem().then("Gemm", g.draw(24, 16), g.draw(24), transB=1).then("LpNormalization", axis=1, p=2)
