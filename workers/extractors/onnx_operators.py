"""ONNX's operators in torch: those that convolutional networks are made of, differentiable, for batches of any size.

Each entry of :data:`OPERATORS` gets one node of the graph as a `Call` and returns a module of its computed inputs, or a
constant. The meaning is that of https://onnx.ai/onnx/operators/. Quantised activations are computed in float: only the
ReLU that a quantiser has hidden in the range of a `QuantizeLinear` is kept, since rounding has no gradient.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import torch
import torch.nn.functional as F
from torch import nn

from workers.extractors import onnx_shapes
from workers.extractors.onnx_call import Apply, Call, Operator, Unsupported, of_first

__all__ = ["OPERATORS"]


def _unary(function: Callable[..., torch.Tensor]) -> Operator:
    return lambda call: of_first(function, call)


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
    return nn.Identity() if low is None and high is None else of_first(torch.clamp, call, min=low, max=high)


def _reduce(function: Callable[..., torch.Tensor]) -> Operator:
    def operator(call: Call) -> nn.Module:
        axes = call.ints("axes", 1)
        if not axes and call.attributes.get("noop_with_empty_axes"):
            return nn.Identity()
        dim = axes or list(range(len(call.shape())))
        return of_first(function, call, dim=dim, keepdim=bool(call.attributes.get("keepdims", 1)))

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


_LEAST: Final = {torch.uint8: 0, torch.int8: -128, torch.int16: -32768, torch.uint16: 0}


def _quantize(call: Call) -> nn.Module:
    """Nothing but the ReLU: where zero is the least value there is, all below it becomes zero."""
    zero = call.constant(2) if call.has(2) else torch.zeros((), dtype=torch.uint8)
    if zero.dtype not in _LEAST or call.constant(1).numel() != 1 or not call.is_computed(0):
        raise Unsupported("activations of this type, or with a scale for each channel, are not understood")
    return of_first(torch.relu, call) if int(zero) == _LEAST[zero.dtype] else nn.Identity()


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


def _hard_sigmoid(x: torch.Tensor, alpha: float, beta: float) -> torch.Tensor:
    return (alpha * x + beta).clamp(0.0, 1.0)


OPERATORS: Final[Mapping[str, Operator]] = {
    "Abs": _unary(torch.abs),
    "Add": _broadcasting(torch.add),
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_norm,
    "Cast": onnx_shapes.cast,
    "Clip": _clip,
    "Concat": onnx_shapes.concat,
    "Constant": onnx_shapes.constant,
    "Conv": _conv,
    "DequantizeLinear": _dequantize,
    "Div": _broadcasting(torch.div),
    "Dropout": lambda call: nn.Identity(),
    "Erf": _unary(torch.erf),
    "Exp": _unary(torch.exp),
    "Expand": onnx_shapes.expand,
    "Flatten": onnx_shapes.flatten,
    "Gather": onnx_shapes.gather,
    "Gemm": _gemm,
    "GlobalAveragePool": _unary(_global_average),
    "GlobalMaxPool": _unary(_global_maximum),
    "HardSigmoid": lambda call: of_first(
        _hard_sigmoid, call, alpha=call.attributes.get("alpha", 0.2), beta=call.attributes.get("beta", 0.5)
    ),
    "HardSwish": _unary(F.hardswish),
    "Identity": lambda call: nn.Identity(),
    "LeakyRelu": lambda call: of_first(F.leaky_relu, call, negative_slope=call.attributes.get("alpha", 0.01)),
    "LpNormalization": lambda call: of_first(
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
    "Reshape": onnx_shapes.reshape,
    "Shape": onnx_shapes.shape,
    "Sigmoid": _unary(torch.sigmoid),
    "Slice": onnx_shapes.slice_,
    "Sqrt": _unary(torch.sqrt),
    "Squeeze": onnx_shapes.squeeze,
    "Sub": _broadcasting(torch.sub),
    "Tanh": _unary(torch.tanh),
    "Transpose": onnx_shapes.transpose,
    "Unsqueeze": onnx_shapes.unsqueeze,
}
