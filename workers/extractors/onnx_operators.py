"""ONNX's operators in torch: those that convolutional networks are made of, differentiable, for batches of any size.

Each entry of :data:`OPERATORS` gets one node of the graph as a :class:`Call` and returns a module of its computed
inputs, or a constant. The meaning is that of https://onnx.ai/onnx/operators/. Quantised activations are computed in
float: only the ReLU that a quantiser has hidden in the range of a `QuantizeLinear` is kept, since rounding has no
gradient.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import nn

__all__ = ["BATCH", "OPERATORS", "Call", "Unsupported"]

BATCH: Final = -1  # what `Shape` gives for the number of images, which is not known


class Unsupported(ValueError):
    """The operator is used in a way that cannot be computed here."""


@dataclass(frozen=True)
class Call:
    """One node of the graph.

    Attributes:
        op: the operator's name.
        attributes: the node's, as Python values; tensors as torch's.
        inputs: constants; for what is computed, a tensor on torch's `meta` device that has its shape; None if left out.
        fixed_batch: number of images that the file was exported for, if it names one.
    """

    op: str
    attributes: Mapping[str, Any]
    inputs: Sequence[torch.Tensor | None]
    fixed_batch: int | None = None

    def has(self, index: int) -> bool:
        return index < len(self.inputs) and self.inputs[index] is not None

    def shape(self, index: int = 0) -> list[int]:
        return list(self._input(index).shape)

    def is_computed(self, index: int) -> bool:
        return self.has(index) and self._input(index).is_meta

    def constant(self, index: int) -> torch.Tensor:
        """The input, which has to be known before any image is."""
        if not self.has(index) or self.is_computed(index):
            raise Unsupported(f"its input {index + 1} has to be a constant")
        return self._input(index)

    def ints(self, name: str, index: int) -> list[int] | None:
        """What older versions of an operator have as attribute `name`, and newer ones as an input."""
        if self.has(index):
            return [int(v) for v in self.constant(index).flatten().tolist()]
        value = self.attributes.get(name)
        return None if value is None else [int(v) for v in (value if isinstance(value, list) else [value])]

    def number(self, name: str, index: int) -> float | None:
        if self.has(index):
            return float(self.constant(index))
        value = self.attributes.get(name)
        return None if value is None else float(value)

    def _input(self, index: int) -> torch.Tensor:
        value = self.inputs[index]
        assert value is not None
        return value


class Apply(nn.Module):
    """A function of a node's inputs: constants are buffers, and lone numbers beside computed inputs plain numbers."""

    def __init__(self, function: Callable[..., torch.Tensor], inputs: Sequence[torch.Tensor | None], **options: Any):
        super().__init__()
        self.function, self.options = function, options
        self.arguments: list[str | float | None] = []
        computes = any(value is not None and value.is_meta for value in inputs)
        for i, value in enumerate(inputs):
            if value is None or value.is_meta:
                self.arguments.append(None)
            elif value.ndim == 0 and computes:
                self.arguments.append(value.item())
            else:
                self.register_buffer(f"constant_{i}", value)
                self.arguments.append(f"constant_{i}")

    def forward(self, *computed: torch.Tensor) -> torch.Tensor:
        given = iter(computed)
        values = [next(given) if a is None else getattr(self, a) if isinstance(a, str) else a for a in self.arguments]
        return self.function(*values, **self.options)


Operator = Callable[[Call], "nn.Module | torch.Tensor"]


def _first(function: Callable[..., torch.Tensor], call: Call, **options: Any) -> nn.Module:
    """The function of the first input; the others have become options."""
    return Apply(function, call.inputs[:1], **options)


def _unary(function: Callable[..., torch.Tensor]) -> Operator:
    return lambda call: _first(function, call)


def _broadcasting(function: Callable[..., torch.Tensor]) -> Operator:
    """Of two inputs; a constant that is alone stays a tensor, since torch's functions want one."""

    def operator(call: Call) -> nn.Module:
        inputs = [x if x is None or x.is_meta or x.ndim else x.reshape(1) for x in call.inputs]
        return Apply(function, inputs)

    return operator


def _conv(call: Call) -> nn.Module:
    weight, bias = call.constant(1), call.constant(2) if call.has(2) else None
    if not call.is_computed(0) or weight.ndim != 4:
        raise Unsupported("only images are convolved")
    groups, dilation = int(call.attributes.get("group", 1)), _pair(call, "dilations")
    stride, kernel = _pair(call, "strides"), list(weight.shape[2:])
    conv = nn.Conv2d(
        weight.shape[1] * groups, weight.shape[0], kernel, stride, dilation=dilation, groups=groups,  # type: ignore[arg-type]
        bias=bias is not None, device="meta",
    )  # fmt: skip
    conv.weight = nn.Parameter(weight)
    if bias is not None:
        conv.bias = nn.Parameter(bias)
    top, left, bottom, right = _pads(call, kernel, stride, dilation)
    if (top, left) == (bottom, right):
        conv.padding = (top, left)
        return conv
    return nn.Sequential(nn.ZeroPad2d((left, right, top, bottom)), conv)


def _pair(call: Call, name: str) -> list[int]:
    return [int(v) for v in call.attributes.get(name, [1, 1])]


def _pads(call: Call, kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]) -> tuple[int, ...]:
    """Pixels to add at the top, left, bottom and right."""
    mode = call.attributes.get("auto_pad", "NOTSET")
    extents = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    if mode == "VALID":
        return (0, 0, 0, 0)
    if mode in ("SAME_UPPER", "SAME_LOWER"):
        sizes = call.shape()[2:]
        needed = [max((-(-n // s) - 1) * s + e - n, 0) for n, s, e in zip(sizes, stride, extents, strict=True)]
        less, more = [n // 2 for n in needed], [n - n // 2 for n in needed]
        return (*less, *more) if mode == "SAME_UPPER" else (*more, *less)
    return tuple(int(v) for v in call.attributes.get("pads", [0, 0, 0, 0]))


def _batch_norm(call: Call) -> nn.Module:
    if call.attributes.get("training_mode"):
        raise Unsupported("it is in training mode")
    weight, bias, mean, variance = (call.constant(i) for i in range(1, 5))
    kind = nn.BatchNorm2d if len(call.shape()) == 4 else nn.BatchNorm1d
    norm = kind(len(weight), eps=float(call.attributes.get("epsilon", 1e-5)), device="meta")
    norm.weight, norm.bias = nn.Parameter(weight), nn.Parameter(bias)
    norm.running_mean, norm.running_var, norm.num_batches_tracked = mean, variance, torch.tensor(0)
    return norm.eval()


def _linear(weight: torch.Tensor, bias: torch.Tensor | None) -> nn.Module:
    """Of weights (out, in)."""
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    linear.weight = nn.Parameter(weight.contiguous())
    if bias is not None:
        linear.bias = nn.Parameter(bias.expand(weight.shape[0]).contiguous())
    return linear


def _gemm(call: Call) -> nn.Module:
    if call.attributes.get("transA") or not call.is_computed(0):
        raise Unsupported("its first input has to be features, one row an image")
    weight = call.constant(1) if call.attributes.get("transB") else call.constant(1).T
    bias = call.constant(2).flatten() * call.attributes.get("beta", 1.0) if call.has(2) else None
    return _linear(weight * call.attributes.get("alpha", 1.0), bias)


def _matmul(call: Call) -> nn.Module:
    if call.is_computed(0) and not call.is_computed(1) and call.constant(1).ndim == 2:
        return _linear(call.constant(1).T, None)
    return Apply(torch.matmul, call.inputs)


def _clip(call: Call) -> nn.Module:
    low, high = call.number("min", 1), call.number("max", 2)
    return nn.Identity() if low is None and high is None else _first(torch.clamp, call, min=low, max=high)


def _reduce(function: Callable[..., torch.Tensor]) -> Operator:
    def operator(call: Call) -> nn.Module:
        axes = call.ints("axes", 1)
        if not axes and call.attributes.get("noop_with_empty_axes"):
            return nn.Identity()
        dim = axes or list(range(len(call.shape())))
        return _first(function, call, dim=dim, keepdim=bool(call.attributes.get("keepdims", 1)))

    return operator


def _norm(x: torch.Tensor, dim: list[int], keepdim: bool) -> torch.Tensor:
    norm: torch.Tensor = torch.linalg.vector_norm(x, dim=dim, keepdim=keepdim)
    return norm


def _max_pool(call: Call) -> nn.Module:
    kernel, stride, dilation = (_pair(call, name) for name in ("kernel_shape", "strides", "dilations"))
    top, left, bottom, right = _pads(call, kernel, stride, dilation)
    pool = nn.MaxPool2d(kernel, stride, dilation=dilation, ceil_mode=bool(call.attributes.get("ceil_mode")))  # type: ignore[arg-type]
    if (top, left) == (bottom, right):
        pool.padding = (top, left)
        return pool
    return nn.Sequential(nn.ConstantPad2d((left, right, top, bottom), -math.inf), pool)


def _average_pool(call: Call) -> nn.Module:
    kernel, stride = _pair(call, "kernel_shape"), _pair(call, "strides")
    top, left, bottom, right = _pads(call, kernel, stride, [1, 1])
    if (top, left) != (bottom, right) or max(_pair(call, "dilations")) > 1:
        raise Unsupported("it is padded unevenly, or dilated")
    ceil, counts = (bool(call.attributes.get(name)) for name in ("ceil_mode", "count_include_pad"))
    return nn.AvgPool2d(kernel, stride, (top, left), ceil_mode=ceil, count_include_pad=counts)  # type: ignore[arg-type]


def _reshape(call: Call) -> nn.Module:
    target, size = call.ints("shape", 1) or [], call.shape()
    if not call.attributes.get("allowzero"):
        target = [size[i] if v == 0 and i < len(size) else v for i, v in enumerate(target)]
    if not call.is_computed(0):
        return _first(torch.reshape, call, shape=target)
    if not target or target[0] not in (BATCH, call.fixed_batch, size[0]):
        raise Unsupported("it mixes the images of a batch")
    rest = target[1:]
    if rest.count(-1) == 1:
        others = -math.prod(rest)
        rest = [math.prod(size[1:]) // max(others, 1) if v == -1 else v for v in rest]
    return _first(torch.reshape, call, shape=[BATCH, *rest])


def _expand(call: Call) -> nn.Module:
    size, target = call.shape(), call.ints("shape", 1) or []
    width = max(len(size), len(target))
    size, target = [1] * (width - len(size)) + size, [1] * (width - len(target)) + target
    return _first(torch.Tensor.expand, call, size=[-1 if t in (1, BATCH) else t for t in target])


def _flatten(call: Call) -> nn.Module:
    if call.attributes.get("axis", 1) != 1:
        raise Unsupported("it mixes the images of a batch")
    return _first(torch.flatten, call, start_dim=1)


def _squeeze(call: Call) -> nn.Module:
    axes = call.ints("axes", 1)
    if axes is None:
        axes = [i for i, n in enumerate(call.shape()) if n == 1]
    return _first(torch.squeeze, call, dim=tuple(axes))


def _unsqueeze(call: Call) -> nn.Module:
    axes = call.ints("axes", 1) or []
    width = len(call.shape()) + len(axes)
    return _first(_with_axes, call, axes=sorted(axis % width for axis in axes))


def _with_axes(x: torch.Tensor, axes: list[int]) -> torch.Tensor:
    for axis in axes:
        x = x.unsqueeze(axis)
    return x


def _concat(call: Call) -> nn.Module:
    return Apply(_joined, [x.reshape(1) if x is not None and x.ndim == 0 else x for x in call.inputs],
                 dim=int(call.attributes["axis"]))  # fmt: skip


def _joined(*parts: torch.Tensor, dim: int) -> torch.Tensor:
    return torch.cat(parts, dim=dim)


def _transpose(call: Call) -> nn.Module:
    order = call.attributes.get("perm") or list(reversed(range(len(call.shape()))))
    return _first(torch.permute, call, dims=[int(v) for v in order])


def _cast(call: Call) -> nn.Module | torch.Tensor:
    """All floats are float32 here, so that only a cast between kinds of numbers remains."""
    floating = int(call.attributes["to"]) in (1, 10, 11, 16)
    if call.is_computed(0):
        if not floating:
            raise Unsupported("it rounds")
        return nn.Identity()
    return call.constant(0).float() if floating else call.constant(0).long()


def _constant(call: Call) -> torch.Tensor:
    for name, dtype in (("value_float", torch.float32), ("value_floats", torch.float32), ("value_int", torch.int64),
                        ("value_ints", torch.int64)):  # fmt: skip
        if name in call.attributes:
            return torch.tensor(call.attributes[name], dtype=dtype)
    if not isinstance(value := call.attributes.get("value"), torch.Tensor):
        raise Unsupported("it is not a number")
    return value


def _shape(call: Call) -> torch.Tensor:
    size = call.shape()
    return torch.tensor([BATCH, *size[1:]] if call.is_computed(0) else size)[
        call.attributes.get("start", 0) : call.attributes.get("end")
    ]


def _gather(call: Call) -> torch.Tensor:
    values, indices = call.constant(0), call.constant(1).long()
    axis = int(call.attributes.get("axis", 0))
    return values.index_select(axis, indices.flatten()).reshape(
        [*values.shape[:axis], *indices.shape, *values.shape[axis + 1 :]]
    )


def _slice(call: Call) -> nn.Module:
    starts, ends = call.ints("starts", 1) or [], call.ints("ends", 2) or []
    axes = call.ints("axes", 3) or list(range(len(starts)))
    if set(call.ints("steps", 4) or [1]) != {1}:
        raise Unsupported("it takes steps")
    parts = [slice(None)] * len(call.shape())
    for axis, start, end in zip(axes, starts, ends, strict=True):
        parts[axis] = slice(start, end)
    return _first(_part, call, parts=tuple(parts))


def _part(x: torch.Tensor, parts: tuple[slice, ...]) -> torch.Tensor:
    return x[parts]


_LEAST: Final = {torch.uint8: 0, torch.int8: -128, torch.int16: -32768, torch.uint16: 0}


def _quantize(call: Call) -> nn.Module:
    """Nothing but the ReLU: where zero is the least value there is, all below it becomes zero."""
    zero = call.constant(2) if call.has(2) else torch.zeros((), dtype=torch.uint8)
    if zero.dtype not in _LEAST or call.constant(1).numel() != 1 or not call.is_computed(0):
        raise Unsupported("activations of this type, or with a scale for each channel, are not understood")
    return _first(torch.relu, call) if int(zero) == _LEAST[zero.dtype] else nn.Identity()


def _dequantize(call: Call) -> nn.Module | torch.Tensor:
    if call.is_computed(0):
        return nn.Identity()
    if call.attributes.get("block_size"):
        raise Unsupported("weights quantised in blocks are not understood")
    values, scale = call.constant(0), call.constant(1).float()
    zero = call.constant(2) if call.has(2) else torch.zeros(())
    if scale.numel() > 1:
        axis = int(call.attributes.get("axis", 1))
        view = [-1 if i == axis % values.ndim else 1 for i in range(values.ndim)]
        scale, zero = scale.reshape(view), zero.reshape(view) if zero.ndim else zero
    return (values.float() - zero.float()) * scale


def _global_average(x: torch.Tensor) -> torch.Tensor:
    return x.mean((2, 3), keepdim=True)


def _global_maximum(x: torch.Tensor) -> torch.Tensor:
    return x.amax((2, 3), keepdim=True)


OPERATORS: Final[Mapping[str, Operator]] = {
    "Abs": _unary(torch.abs),
    "Add": _broadcasting(torch.add),
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_norm,
    "Cast": _cast,
    "Clip": _clip,
    "Concat": _concat,
    "Constant": _constant,
    "Conv": _conv,
    "DequantizeLinear": _dequantize,
    "Div": _broadcasting(torch.div),
    "Dropout": lambda call: nn.Identity(),
    "Erf": _unary(torch.erf),
    "Exp": _unary(torch.exp),
    "Expand": _expand,
    "Flatten": _flatten,
    "Gather": _gather,
    "Gemm": _gemm,
    "GlobalAveragePool": _unary(_global_average),
    "GlobalMaxPool": _unary(_global_maximum),
    "HardSigmoid": lambda call: _first(
        _hard_sigmoid, call, alpha=call.attributes.get("alpha", 0.2), beta=call.attributes.get("beta", 0.5)
    ),
    "HardSwish": _unary(F.hardswish),
    "Identity": lambda call: nn.Identity(),
    "LeakyRelu": lambda call: _first(F.leaky_relu, call, negative_slope=call.attributes.get("alpha", 0.01)),
    "LpNormalization": lambda call: _first(
        F.normalize, call, p=call.attributes.get("p", 2), dim=call.attributes.get("axis", -1)
    ),
    "MatMul": _matmul,
    "Max": _broadcasting(torch.maximum),
    "MaxPool": _max_pool,
    "Min": _broadcasting(torch.minimum),
    "Mul": _broadcasting(torch.mul),
    "Neg": _unary(torch.neg),
    "Pow": lambda call: Apply(torch.pow, call.inputs),
    "QuantizeLinear": _quantize,
    "ReduceL2": _reduce(_norm),
    "ReduceMax": _reduce(torch.amax),
    "ReduceMean": _reduce(torch.mean),
    "ReduceSum": _reduce(torch.sum),
    "Relu": _unary(torch.relu),
    "Reshape": _reshape,
    "Shape": _shape,
    "Sigmoid": _unary(torch.sigmoid),
    "Slice": _slice,
    "Sqrt": _unary(torch.sqrt),
    "Squeeze": _squeeze,
    "Sub": _broadcasting(torch.sub),
    "Tanh": _unary(torch.tanh),
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}


def _hard_sigmoid(x: torch.Tensor, alpha: float, beta: float) -> torch.Tensor:
    return (alpha * x + beta).clamp(0.0, 1.0)
