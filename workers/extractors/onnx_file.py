"""ONNX files as networks with gradients: read in memory, one torch module or function for each operator.

The `onnx` package reads and checks the file; nothing in it is run, and what it says is bounded before memory is taken.
Weights of any precision become float32 here, since :mod:`workers.extractors.prepare` decides what is computed in what.
onnx2torch was tried first: it knows no quantised files, and none whose weights are cast, as in float16.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import fx, nn
from torch.func import functional_call

from tasks.errors import CorruptExtractor, TooLarge
from workers.extractors.network import IMAGENET_MEAN, IMAGENET_STD
from workers.extractors.onnx_call import Apply, Call, Unsupported
from workers.extractors.onnx_operators import OPERATORS

if TYPE_CHECKING:
    import onnx

__all__ = ["is_channels_last", "onnx_network"]

_MAX_BYTES: Final = 2**30
_MAX_ELEMENTS: Final = 2**27  # of one tensor, for the images of `_TRACED`: half a gigabyte
_TRACED: Final = 2  # images whose shapes are followed through the graph: a batch, and not one image


def onnx_network(path: Path, side: int, normalise: str | None) -> nn.Module:
    """The file as a network for :func:`workers.extractors.network.embed`: of colours normalised as ImageNet's.

    Args:
        side: of the square images.
        normalise: what the file expects of its colours: `imagenet`, which is the default, or `none` for [0, 1]. A file
            that takes bytes does it itself.

    Raises:
        CorruptExtractor: the file is damaged, holds an operator that is not known here, or takes no square images.
        TooLarge: the file, or a tensor that it describes, is out of all proportion.
    """
    model = _read(path)
    try:
        return _Converter(model.graph, model.opset_import, side, normalise).convert()
    except Unsupported as error:
        raise CorruptExtractor(f"{path.name} cannot be an extractor: {error}.") from error


def is_channels_last(sizes: Sequence[Any]) -> bool:
    """Whether an input of these sizes takes images (B, S, S, 3), and not (B, 3, S, S); a size may be unknown."""
    return len(sizes) == 4 and sizes[3] == 3 and sizes[1] != 3


def _read(path: Path) -> onnx.ModelProto:
    import onnx  # noqa: PLC0415  # only those who use such files pay for it
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # noqa: PLC0415

    if path.stat().st_size > _MAX_BYTES:
        raise TooLarge(f"{path.name} is larger than {_MAX_BYTES:,} bytes: no network that is fast enough is.")
    try:
        model = onnx.load_model(path, format="protobuf", load_external_data=False)
    except DecodeError as error:
        raise CorruptExtractor(f"{path.name} is not an ONNX file: fetch it again.") from error
    _refuse_parts_elsewhere(path, model)
    try:
        onnx.checker.check_model(model)
    except (onnx.checker.ValidationError, ValueError, RuntimeError) as error:
        raise CorruptExtractor(f"{path.name} is no valid ONNX file: {str(error).splitlines()[0][:200]}") from error
    return model


def _refuse_parts_elsewhere(path: Path, model: onnx.ModelProto) -> None:
    """Before anything is looked up: a file may name any other file of this machine as its weights."""
    import onnx  # noqa: PLC0415

    tensors = [*model.graph.initializer, *(a.t for node in model.graph.node for a in node.attribute)]
    if any(t.data_location == onnx.TensorProto.EXTERNAL or t.external_data for t in tensors):
        raise CorruptExtractor(f"{path.name} keeps weights in other files: save it as one file.")
    if model.functions or model.graph.sparse_initializer:
        raise CorruptExtractor(f"{path.name} defines operators of its own, or sparse weights: export it without.")


@dataclass(frozen=True)
class _Computed:
    """A value that depends on the images: the node that gives it, and a tensor without memory that has its shape."""

    node: fx.Node
    shape: torch.Tensor


@dataclass(frozen=True)
class _Colours:
    """The images, of which only colours and layout have been changed: `scale` × pixel + `shift`, pixels in [0, 1].

    Kept apart because :func:`workers.extractors.network.embed` has normalised already, in float32: both become one map.
    """

    scale: torch.Tensor
    shift: torch.Tensor
    channels_last: bool

    def after(self, op: str, constant: torch.Tensor | None, order: list[int] | None) -> _Colours | None:
        """With one more operator; None if it does something else."""
        if op in ("Cast", "Identity"):
            return self
        if op == "Transpose":
            return _Colours(self.scale, self.shift, False) if self.channels_last and order == [0, 3, 1, 2] else None
        value = None if constant is None else self._by_channel(constant)
        if value is None or op not in ("Add", "Sub", "Mul", "Div"):
            return None
        if op in ("Add", "Sub"):
            return _Colours(self.scale, self.shift + (value if op == "Add" else -value), self.channels_last)
        factor = value if op == "Mul" else 1.0 / value
        return _Colours(self.scale * factor, self.shift * factor, self.channels_last)

    def _by_channel(self, constant: torch.Tensor) -> torch.Tensor | None:
        like = (1, 1, 1, 3) if self.channels_last else (1, 3, 1, 1)
        try:
            return constant.float().expand(like).reshape(3)
        except RuntimeError:  # of another shape
            return None


class _ColourMap(nn.Module):
    """From ImageNet's normalised colours (B, 3, S, S) to those that the file computes with."""

    scale: torch.Tensor
    shift: torch.Tensor

    def __init__(self, colours: _Colours) -> None:
        super().__init__()
        mean, std = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)
        self.register_buffer("scale", (colours.scale * std)[:, None, None])
        self.register_buffer("shift", (colours.scale * mean + colours.shift)[:, None, None])
        self.channels_last = colours.channels_last

    def does_nothing(self) -> bool:
        far = max(float((self.scale - 1.0).abs().max()), float(self.shift.abs().max()))
        return far < 1e-4 and not self.channels_last

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        images = images * self.scale + self.shift
        return images.permute(0, 2, 3, 1) if self.channels_last else images


class _Converter:
    """One graph on its way to torch. Values known before any image are computed at once, and the rest is recorded."""

    def __init__(self, graph: onnx.GraphProto, opsets: Any, side: int, normalise: str | None) -> None:
        self._graph, self._side = graph, side
        self._root, self._record = nn.Module(), fx.Graph()
        self._values: dict[str, torch.Tensor | _Computed | _Colours] = {}
        self._images = self._record.placeholder("images")
        self._fixed_batch: int | None = None
        if any(o.domain in ("", "ai.onnx") and o.version < 7 for o in opsets):
            raise Unsupported("it is of an operator set before 7: export it again")
        for tensor in graph.initializer:
            self._values[tensor.name] = _tensor(tensor)
        self._take_images(normalise)

    def convert(self) -> nn.Module:
        if len(self._graph.output) != 1:
            raise Unsupported(f"it has {len(self._graph.output)} outputs, and not one: the features")
        for node in self._graph.node:
            try:
                self._convert(node)
            except (Unsupported, RuntimeError, IndexError, KeyError, TypeError, ValueError) as error:
                what = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
                raise Unsupported(f"its operator {_operator(node)} cannot be used, since {what}") from error
        features = self._values.get(self._graph.output[0].name)
        if not isinstance(features, _Computed):
            raise Unsupported("its output does not depend on the images")
        if features.shape.ndim != 2:
            raise Unsupported(f"it gives {tuple(features.shape.shape[1:])} for an image, and not one row of features")
        self._record.output(features.node)
        return fx.GraphModule(self._root, self._record, "OnnxNetwork")

    def _take_images(self, normalise: str | None) -> None:
        known = self._values.keys()
        inputs = [i for i in self._graph.input if i.name not in known]
        if len(inputs) != 1:
            raise Unsupported(f"it has {len(inputs)} inputs, and not one: the images")
        kind = inputs[0].type.tensor_type
        sizes = [d.dim_value or None for d in kind.shape.dim] or [None] * 4
        channels_last = is_channels_last(sizes)
        channels, sides = (sizes[3], sizes[1:3]) if channels_last else (sizes[1], sizes[2:4])
        if len(sizes) != 4 or channels not in (3, None):
            raise Unsupported("its input is no batch of RGB images")
        if any(side not in (self._side, None) for side in sides):
            raise Unsupported(f"it takes images of {sides[0]} × {sides[1]} pixels only: add #size={sides[0]}")
        self._fixed_batch = sizes[0]
        self._values[inputs[0].name] = _colours(kind.elem_type, normalise, channels_last)

    def _convert(self, node: onnx.NodeProto) -> None:
        if node.domain not in ("", "ai.onnx") or node.op_type not in OPERATORS:
            raise Unsupported("it is not known here")
        if any(node.output[1:]):
            raise Unsupported("it has several outputs")
        attributes = {a.name: _attribute(a) for a in node.attribute}
        values = [self._values[name] if name else None for name in node.input]
        colours = _absorbed(node.op_type, attributes, values)
        if colours is not None:
            self._values[node.output[0]] = colours
            return
        given = [self._materialised(name) if isinstance(v, _Colours) else v
                 for name, v in zip(node.input, values, strict=True)]  # fmt: skip
        inputs = [v.shape if isinstance(v, _Computed) else v for v in given]
        result = OPERATORS[node.op_type](Call(node.op_type, attributes, inputs, self._fixed_batch))
        if isinstance(result, nn.Module):
            self._values[node.output[0]] = self._run(node.op_type, result, given)
        else:
            self._values[node.output[0]] = _float32(result)

    def _run(
        self, op: str, module: nn.Module, given: list[torch.Tensor | _Computed | None]
    ) -> torch.Tensor | _Computed:
        """Recorded where it depends on the images, otherwise computed; its shape is known and bounded before."""
        computed = [v for v in given if isinstance(v, _Computed)]
        if not computed:
            passed = [v for v in given[:1] if isinstance(v, torch.Tensor)]
            constants = passed if isinstance(module, nn.Identity) else []
            _shape_of(module, [v.to("meta") for v in constants])
            return _float32(module(*constants))
        if isinstance(module, nn.Identity | nn.modules.conv._ConvNd | nn.Linear):
            computed = computed[:1]
        shape = _shape_of(module, [v.shape for v in computed])
        if not shape.ndim or shape.shape[0] != _TRACED:
            raise Unsupported("it mixes the images of a batch")
        if isinstance(module, nn.Identity):
            return _Computed(computed[0].node, shape)
        nodes = tuple(v.node for v in computed)
        if isinstance(module, Apply) and module.is_plain:
            return _Computed(self._record.call_function(module.function, nodes), shape)
        name = f"{op.lower()}_{len(self._record.nodes)}"
        self._root.add_module(name, module)
        return _Computed(self._record.call_module(name, nodes), shape)

    def _materialised(self, name: str) -> _Computed:
        colours = self._values[name]
        assert isinstance(colours, _Colours)
        shape = torch.empty(_TRACED, 3, self._side, self._side, device="meta")
        node, mapping = self._images, _ColourMap(colours)
        if not mapping.does_nothing():
            self._root.add_module("colours", mapping)
            node = self._record.call_module("colours", (self._images,))
            shape = shape.permute(0, 2, 3, 1) if colours.channels_last else shape
        computed = self._values[name] = _Computed(node, shape)
        return computed


def _absorbed(
    op: str, attributes: Mapping[str, Any], values: list[torch.Tensor | _Computed | _Colours | None]
) -> _Colours | None:
    """The operator as a change of the images' colours, if it is nothing else."""
    if not values or not isinstance(values[0], _Colours):
        return None
    constant = values[1] if len(values) == 2 and isinstance(values[1], torch.Tensor) else None
    if len(values) > 1 and constant is None:
        return None
    return values[0].after(op, constant, attributes.get("perm"))


def _colours(elem_type: int, normalise: str | None, channels_last: bool) -> _Colours:
    if elem_type == 2:  # bytes
        if normalise is not None:
            raise Unsupported("it takes bytes and normalises them itself: leave out #normalise")
        return _Colours(torch.full((3,), 255.0), torch.zeros(3), channels_last)
    if elem_type not in (1, 10, 11, 16):
        raise Unsupported("its input is neither of floats nor of bytes")
    if normalise == "none":
        return _Colours(torch.ones(3), torch.zeros(3), channels_last)
    mean, std = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)
    return _Colours(1.0 / std, -mean / std, channels_last)


def _shape_of(module: nn.Module, inputs: list[torch.Tensor]) -> torch.Tensor:
    """What the module gives, without memory or computation."""
    state = {k: v.to("meta") for k, v in [*module.named_parameters(), *module.named_buffers()]}
    with torch.no_grad():
        shape: torch.Tensor = functional_call(module, state, tuple(inputs))
    if shape.numel() > _MAX_ELEMENTS:
        raise TooLarge(f"The ONNX file describes a tensor of {shape.numel():,} elements: no extractor needs it.")
    return shape


def _tensor(tensor: onnx.TensorProto) -> torch.Tensor:
    from onnx import numpy_helper  # noqa: PLC0415

    try:
        array = numpy_helper.to_array(tensor)
        if str(array.dtype) == "bfloat16":
            array = array.astype("float32")
        return _float32(torch.from_numpy(array.copy()))
    except (ValueError, TypeError) as error:
        raise Unsupported(f"its weights {tensor.name} are damaged, or of a type that is not known here") from error


def _float32(value: torch.Tensor) -> torch.Tensor:
    return value.float() if value.is_floating_point() else value


def _attribute(attribute: onnx.AttributeProto) -> Any:
    """As a Python value: text decoded, tensors as torch's."""
    import onnx  # noqa: PLC0415

    if attribute.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS):
        raise Unsupported("it branches")
    value = onnx.helper.get_attribute_value(attribute)
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, onnx.TensorProto):
        return _tensor(value)
    return list(value) if attribute.type in (onnx.AttributeProto.INTS, onnx.AttributeProto.FLOATS) else value


def _operator(node: onnx.NodeProto) -> str:
    name = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
    return f"{name} ({node.name})" if node.name else name
