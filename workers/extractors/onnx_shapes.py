"""ONNX's operators that compute nothing: they change shapes, order and type, or give constants.

The images of a batch stay apart: an operator that would mix them is refused.
"""

from __future__ import annotations

import math

import torch
from torch import nn

from workers.extractors.onnx_call import BATCH, Apply, Call, Unsupported, of_first

__all__ = [
    "cast",
    "concat",
    "constant",
    "expand",
    "flatten",
    "gather",
    "reshape",
    "shape",
    "slice_",
    "squeeze",
    "transpose",
    "unsqueeze",
]


def reshape(call: Call) -> nn.Module:
    target, size = call.ints("shape", 1) or [], call.shape()
    if not call.attributes.get("allowzero"):
        target = [size[i] if v == 0 and i < len(size) else v for i, v in enumerate(target)]
    if not call.is_computed(0):
        return of_first(torch.reshape, call, shape=target)
    if not target or target[0] not in (BATCH, call.fixed_batch, size[0]):
        raise Unsupported("it mixes the images of a batch")
    rest = target[1:]
    if rest.count(-1) == 1:
        others = -math.prod(rest)
        rest = [math.prod(size[1:]) // max(others, 1) if v == -1 else v for v in rest]
    return of_first(torch.reshape, call, shape=[BATCH, *rest])


def expand(call: Call) -> nn.Module:
    size, target = call.shape(), call.ints("shape", 1) or []
    width = max(len(size), len(target))
    size, target = [1] * (width - len(size)) + size, [1] * (width - len(target)) + target
    return of_first(torch.Tensor.expand, call, size=[-1 if t in (1, BATCH) else t for t in target])


def flatten(call: Call) -> nn.Module:
    if call.attributes.get("axis", 1) != 1:
        raise Unsupported("it mixes the images of a batch")
    return of_first(torch.flatten, call, start_dim=1)


def squeeze(call: Call) -> nn.Module:
    axes = call.ints("axes", 1)
    if axes is None:
        axes = [i for i, n in enumerate(call.shape()) if n == 1]
    return of_first(torch.squeeze, call, dim=tuple(axes))


def unsqueeze(call: Call) -> nn.Module:
    axes = call.ints("axes", 1) or []
    width = len(call.shape()) + len(axes)
    return of_first(_with_axes, call, axes=sorted(axis % width for axis in axes))


def _with_axes(x: torch.Tensor, axes: list[int]) -> torch.Tensor:
    for axis in axes:
        x = x.unsqueeze(axis)
    return x


def concat(call: Call) -> nn.Module:
    return Apply(_joined, [x.reshape(1) if x is not None and x.ndim == 0 else x for x in call.inputs],
                 dim=int(call.attributes["axis"]))  # fmt: skip


def _joined(*parts: torch.Tensor, dim: int) -> torch.Tensor:
    return torch.cat(parts, dim=dim)


def transpose(call: Call) -> nn.Module:
    order = call.attributes.get("perm") or list(reversed(range(len(call.shape()))))
    return of_first(torch.permute, call, dims=[int(v) for v in order])


def cast(call: Call) -> nn.Module | torch.Tensor:
    """All floats are float32 here, so that only a cast between kinds of numbers remains."""
    floating = int(call.attributes["to"]) in (1, 10, 11, 16)
    if call.is_computed(0):
        if not floating:
            raise Unsupported("it rounds")
        return nn.Identity()
    return call.constant(0).float() if floating else call.constant(0).long()


def constant(call: Call) -> torch.Tensor:
    for name, dtype in (("value_float", torch.float32), ("value_floats", torch.float32), ("value_int", torch.int64),
                        ("value_ints", torch.int64)):  # fmt: skip
        if name in call.attributes:
            return torch.tensor(call.attributes[name], dtype=dtype)
    if not isinstance(value := call.attributes.get("value"), torch.Tensor):
        raise Unsupported("it is not a number")
    return value


def shape(call: Call) -> torch.Tensor:
    size = call.shape()
    return torch.tensor([BATCH, *size[1:]] if call.is_computed(0) else size)[
        call.attributes.get("start", 0) : call.attributes.get("end")
    ]


def gather(call: Call) -> torch.Tensor:
    values, indices = call.constant(0), call.constant(1).long()
    axis = int(call.attributes.get("axis", 0))
    return values.index_select(axis, indices.flatten()).reshape(
        [*values.shape[:axis], *indices.shape, *values.shape[axis + 1 :]]
    )


def slice_(call: Call) -> nn.Module:
    starts, ends = call.ints("starts", 1) or [], call.ints("ends", 2) or []
    axes = call.ints("axes", 3) or list(range(len(starts)))
    if set(call.ints("steps", 4) or [1]) != {1}:
        raise Unsupported("it takes steps")
    parts = [slice(None)] * len(call.shape())
    for axis, start, end in zip(axes, starts, ends, strict=True):
        parts[axis] = slice(start, end)
    return of_first(_part, call, parts=tuple(parts))


def _part(x: torch.Tensor, parts: tuple[slice, ...]) -> torch.Tensor:
    return x[parts]
