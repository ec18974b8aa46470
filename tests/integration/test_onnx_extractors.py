"""ONNX files as extractors give what ONNX's own evaluation gives; what cannot be computed is refused."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from click.testing import CliRunner
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from tasks.errors import AiiError, CorruptExtractor, ExtractorMissing, InvalidRequest, TooLarge
from tasks.names import sha256_hex
from tasks.storage import Bucket, ObjectStore
from tests.file_server import FileServer
from tests.images_zoo import LIMITS
from tests.onnx_graphs import SIDE, Graph, convolutional
from tests.photographs import crops
from workers.commands.extractor import extractor as command
from workers.extractors import onnx_file
from workers.extractors.fused import fused
from workers.extractors.network import IMAGENET_MEAN, IMAGENET_STD
from workers.extractors.onnx_file import onnx_network
from workers.extractors.onnx_runtime import OnnxRuntime
from workers.extractors.registry import load_extractor
from workers.images import decode
from workers.images.tensors import to_input

CPU = torch.device("cpu")
MEAN, STD = (np.array(v, np.float32).reshape(1, 3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
BYTES = np.random.default_rng(3).integers(0, 256, (3, SIDE, SIDE, 3), dtype=np.uint8)
IMAGES = torch.from_numpy(BYTES).permute(0, 3, 1, 2) / 255


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Downloads and pins of this test alone."""
    monkeypatch.setenv("AII_STATE_DIR", str(tmp_path / "state"))


def quantised() -> Graph:
    """Bytes in, weights of int8, activations rounded, and the ReLU only in the range of the rounding."""
    g = Graph().then("Cast", to=TensorProto.FLOAT)
    g.then("Sub", MEAN.reshape(3) * 255).then("Div", STD.reshape(3) * 255).then("Transpose", perm=[0, 3, 1, 2])
    g.through_bytes(0.0187, 114)
    g.then("Conv", g.quantised_weights(32, 3, 3, 3), strides=[2, 2]).through_bytes(0.01, 0)
    g.then("Conv", g.quantised_weights(32, 32, 3, 3), strides=[2, 2]).through_bytes(0.02, 0)
    g.then("Reshape", np.array([0, 0, -1])).then("Clip", np.float32(1e-6), "").then("Pow", np.float32(3))
    g.then("ReduceMean", [2], keepdims=0).then("Pow", np.float32(1 / 3)).then("Gemm", g.draw(24, 32), transB=1)
    size, norm = g.node("Shape", [g.last]), g.node("ReduceL2", [g.last, g.constant([1])], keepdims=1)
    return g.then("Div", g.node("Expand", [norm, size]))


def single() -> Graph:
    """Of one image: the shape of the batch is in the file."""
    g = Graph()
    g.then("Conv", g.draw(8, 3, 3, 3)).then("GlobalAveragePool").then("Reshape", np.array([1, 8]))
    return g.then("MatMul", g.draw(8, 16))


def features(path: Path, images: torch.Tensor = IMAGES, options: str = "") -> torch.Tensor:
    extractor = load_extractor(f"{path}#size={SIDE}{options}", CPU, precision="float32")
    with torch.no_grad():
        return extractor(images)


def reference(path: Path, images: np.ndarray[Any, Any]) -> torch.Tensor:
    """What ONNX's own evaluation in numpy gives."""
    (given,) = ReferenceEvaluator(str(path)).run(None, {"image": images})
    return F.normalize(torch.from_numpy(np.asarray(given, np.float32)))


@pytest.mark.parametrize("dtype", [np.float32, np.float16], ids=lambda dtype: dtype.__name__)
def test_a_file_of_floats_gives_what_onnx_itself_computes(tmp_path: Path, dtype: type) -> None:
    path = convolutional(dtype).save(tmp_path / "net.onnx")
    expected = reference(path, (IMAGES.numpy() - MEAN) / STD)
    assert torch.allclose(features(path), expected, atol=1e-5)


def test_a_quantised_file_agrees_but_for_the_rounding_of_activations(tmp_path: Path) -> None:
    path = quantised().save(tmp_path / "net.onnx", of_bytes=True)
    assert F.cosine_similarity(features(path), reference(path, BYTES)).min() >= 0.97


def test_convolutions_of_a_quantised_file_take_its_hidden_relu_along(tmp_path: Path) -> None:
    net = onnx_network(quantised().save(tmp_path / "net.onnx", of_bytes=True), SIDE, None)
    assert isinstance(net, torch.fx.GraphModule)
    merged = fused(net.requires_grad_(False))
    called = [str(node.target) for node in merged.graph.nodes if node.op == "call_module"]
    assert sum(name.startswith("fused_conv") for name in called) == 2
    assert torch.allclose(merged(IMAGES), net(IMAGES), atol=1e-5)


def test_the_gradient_of_a_quantised_file_is_not_rounded_away(tmp_path: Path) -> None:
    path = quantised().save(tmp_path / "net.onnx", of_bytes=True)
    extractor = load_extractor(f"{path}#size={SIDE}", CPU, precision="float32")
    images, target = IMAGES.clone().requires_grad_(True), F.normalize(torch.ones(24), dim=0)
    before = extractor(images) @ target
    (gradient,) = torch.autograd.grad(before.sum(), images)
    assert (
        (extractor(images + 0.02 * gradient / gradient.abs().amax((1, 2, 3), keepdim=True)) @ target) > before
    ).all()


def test_colours_are_normalised_unless_the_file_does_it_itself(tmp_path: Path) -> None:
    path = convolutional().save(tmp_path / "net.onnx")
    assert torch.allclose(features(path, options="&normalise=none"), reference(path, IMAGES.numpy()), atol=1e-5)
    name = load_extractor(f"{path}#size={SIDE}&normalise=none", CPU, precision="float32").name
    assert name == f"onnx-unnormalised-{SIDE}"
    assert load_extractor(f"{path}#size={SIDE}&normalise=imagenet", CPU, precision="float32").name == f"onnx-{SIDE}"


def test_a_file_that_was_exported_for_one_image_serves_a_batch(tmp_path: Path) -> None:
    path = single().save(tmp_path / "net.onnx", batch=1)
    normalised = (IMAGES.numpy() - MEAN) / STD
    expected = torch.cat([reference(path, normalised[i : i + 1]) for i in range(len(normalised))])
    assert torch.allclose(features(path), expected, atol=1e-5)


OTHERS: dict[str, Any] = {
    "shape arithmetic": lambda g: g.then(
        "Reshape",
        g.node("Concat", [
            g.node("Unsqueeze", [g.node("Gather", [g.node("Shape", [g.last]), g.constant(0)]), g.constant([0])]),
            g.constant([8 * 8 * 8]),
        ], axis=0),
    ),
    "uneven pads": lambda g: g.then("Conv", g.draw(8, 8, 3, 3), pads=[0, 1, 2, 0]).then("Flatten"),
    "average pool": lambda g: g.then(
        "AveragePool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]).then("Flatten"),
    "squeeze and excitation": lambda g: g.then(
        "Mul", g.node("HardSigmoid", [g.node("GlobalAveragePool", [g.last])], alpha=0.17)
    ).then("Flatten"),
    "concat": lambda g: g.then("Concat", g.node("Sigmoid", [g.last]), axis=1).then("Flatten"),
    "slice": lambda g: g.then("Slice", [2], [6], [1]).then("Flatten"),
    "squeeze": lambda g: g.then("GlobalMaxPool").then("Squeeze", [2, 3]).then("Unsqueeze", [1]).then("Flatten"),
    "square root": lambda g: g.then("Abs").then("Sqrt").then("LeakyRelu").then("Flatten"),
    "transpose": lambda g: g.then("Transpose", perm=[0, 2, 3, 1]).then("ReduceMean", axes=[1, 2], keepdims=0),
}  # fmt: skip


@pytest.mark.parametrize("kind", list(OTHERS))
def test_other_operators_compute_what_onnx_computes(tmp_path: Path, kind: str) -> None:
    g = Graph()
    g.then("Conv", g.draw(8, 3, 3, 3), strides=[4, 4], pads=[1, 1, 1, 1])
    path = OTHERS[kind](g).save(tmp_path / "net.onnx")
    assert torch.allclose(features(path), reference(path, (IMAGES.numpy() - MEAN) / STD), atol=1e-5)


def test_batch_norms_are_folded_away(tmp_path: Path) -> None:
    prepared = load_extractor(f"{convolutional().save(tmp_path / 'net.onnx')}#size={SIDE}", CPU, precision="float32")
    modules = prepared._prepared.registers.net.modules()  # type: ignore[attr-defined]
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in modules)


def test_a_file_comes_from_a_url_or_the_store_by_its_digest(tmp_path: Path, store: ObjectStore) -> None:
    (served := tmp_path / "served").mkdir()
    path = convolutional().save(served / "net.onnx")
    digest, expected = sha256_hex(path.read_bytes()), features(path)
    with FileServer(served).running() as server:
        from_url = load_extractor(f"{server.url('net.onnx')}#size={SIDE}&sha256={digest}", CPU, precision="float32")
    store.ensure_buckets()
    store.put_file(Bucket.EXTRACTORS, "net.onnx", path)
    from_store = load_extractor(f"s3://extractors/net.onnx#size={SIDE}", CPU, store, precision="float32")
    assert from_url.sha256 == from_store.sha256 == digest
    assert torch.equal(from_url(IMAGES), expected)
    assert torch.equal(from_store(IMAGES), expected)
    assert sha256_hex(path.read_bytes()) == digest


def external(g: Graph) -> Any:
    """Weights in a file that anybody may read."""
    model = g.model()
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="passwd")
    return model


def of_another_domain(g: Graph) -> Any:
    g.nodes.append(helper.make_node("FusedConv", [g.last], ["fused"], domain="com.microsoft", name="fused_1"))
    g.last = "fused"
    model = g.model()
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return model


def torn(g: Graph) -> Any:
    model = g.model()
    tensor = next(t for t in model.graph.initializer if t.raw_data)
    tensor.raw_data = tensor.raw_data[: len(tensor.raw_data) // 2]
    return model


REFUSED: dict[str, tuple[Any, type[AiiError], str]] = {
    "unknown operator": (lambda g: g.then("Softmax").model(), CorruptExtractor, "operator Softmax cannot be used"),
    "another domain": (of_another_domain, CorruptExtractor, r"operator com\.microsoft\.FusedConv \(fused_1\)"),
    "weights elsewhere": (external, CorruptExtractor, "weights in other files"),
    "torn weights": (torn, CorruptExtractor, "no valid ONNX file|are damaged"),
    "giant": (lambda g: g.then("Unsqueeze", [2, 3]).then("Expand", [1, 1, 10**9, 1]).model(), TooLarge, "elements"),
    "giant pads": (
        lambda g: Graph().then("MaxPool", kernel_shape=[1, 1], strides=[1, 1]).then(
            "Conv", np.ones((1, 3, 1, 1), np.float32), pads=[10**5] * 4).model(), TooLarge, "elements"),
    "one image out of many": (lambda g: g.then("Reshape", [-1]).model(), CorruptExtractor, "mixes the images"),
    "wrong shape": (lambda g: g.then("Gemm", np.ones((5, 5), np.float32)).model(), CorruptExtractor, "operator Gemm"),
    "no feature": (lambda g: g.then("ReduceMean", axes=[1], keepdims=0).model(), CorruptExtractor, "one row of"),
}  # fmt: skip


@pytest.mark.parametrize("kind", list(REFUSED))
def test_what_cannot_be_computed_is_refused_by_name(tmp_path: Path, kind: str) -> None:
    spoil, error, says = REFUSED[kind]
    (tmp_path / "net.onnx").write_bytes(spoil(convolutional()).SerializeToString())
    with pytest.raises(error, match=says):
        features(tmp_path / "net.onnx")


def test_a_file_that_is_no_onnx_or_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "net.onnx").write_bytes(b"\xff no network at all" * 100)
    with pytest.raises(CorruptExtractor, match="not an ONNX file"):
        features(tmp_path / "net.onnx")
    monkeypatch.setattr(onnx_file, "_MAX_BYTES", 1_000)
    with pytest.raises(TooLarge, match="larger than 1,000 bytes"):
        features(tmp_path / "net.onnx")


def test_options_that_do_not_fit_the_file_are_refused(tmp_path: Path) -> None:
    path = quantised().save(tmp_path / "net.onnx", of_bytes=True)
    with pytest.raises(CorruptExtractor, match="leave out #normalise"):
        features(path, options="&normalise=imagenet")
    with pytest.raises(ExtractorMissing, match="#normalise=imagenet or none"):
        features(path, options="&normalise=maybe")


def test_show_says_what_an_extractor_is(tmp_path: Path) -> None:
    path = convolutional().save(tmp_path / "net.onnx")
    shown = CliRunner().invoke(command, ["show", f"{path}#size={SIDE}"])
    assert shown.exit_code == 0, shown.output
    assert f"onnx-{SIDE}" in shown.output
    assert sha256_hex(path.read_bytes()) in shown.output
    assert f"{SIDE} × {SIDE}" in shown.output
    assert "24" in shown.output
    assert "float32" in shown.output
    assert "forward" in shown.output


RUNTIME: dict[str, tuple[Callable[[], Graph], dict[str, Any], str, float]] = {
    "floats": (convolutional, {}, "", 0.99999),
    "float16": (lambda: convolutional(np.float16), {}, "", 0.99999),
    "colours in [0, 1]": (convolutional, {}, "&normalise=none", 0.99999),
    "int8, of bytes": (quantised, {"of_bytes": True}, "", 0.97),  # the runtime rounds activations as well
    "one size of batch": (single, {"batch": 1}, "", 0.99999),
}


@pytest.mark.parametrize("kind", RUNTIME)
def test_onnx_runtime_gives_the_features_of_the_network(tmp_path: Path, kind: str) -> None:
    graph, options, colours, agreement = RUNTIME[kind]
    name = f"{graph().save(tmp_path / 'net.onnx', **options)}#size={SIDE}{colours}"
    extractor = load_extractor(name, CPU, precision="float32")
    by_runtime = OnnxRuntime(name, extractor)
    assert by_runtime.sha256 != extractor.sha256  # features of one are never taken for the other's
    with torch.no_grad():
        found, expected = by_runtime(IMAGES), extractor(IMAGES)
    assert found.dtype == torch.float32
    assert torch.allclose(found.norm(dim=1), torch.ones(len(IMAGES)), atol=1e-5)
    assert F.cosine_similarity(found, expected).min() >= agreement


def test_what_onnx_runtime_cannot_run_is_said(tmp_path: Path) -> None:
    compact = load_extractor("compact", CPU, precision="float32")
    with pytest.raises(InvalidRequest, match="leave out --fast-references"):
        OnnxRuntime("compact", compact)
    newer = convolutional().model()
    newer.opset_import[0].version = 1000  # of a later runtime
    path = tmp_path / "newer.onnx"
    path.write_bytes(newer.SerializeToString())
    with pytest.raises(InvalidRequest, match="ONNX Runtime refuses"):
        OnnxRuntime(str(path), compact)


@pytest.mark.skipif("AII_TEST_SSCD_ONNX" not in os.environ, reason="AII_TEST_SSCD_ONNX does not name a file of SSCD")
def test_a_real_file_gives_the_features_of_onnx_runtime() -> None:
    name = os.environ["AII_TEST_SSCD_ONNX"] + "#size=288"
    images = torch.stack([to_input(decode(data, LIMITS).pixels, 288) for data in crops(8)])
    extractor = load_extractor(name, CPU, precision="float32")
    with torch.no_grad():
        cosines = F.cosine_similarity(extractor(images), OnnxRuntime(name, extractor)(images))
    assert cosines.mean() >= 0.97
    assert cosines.min() >= 0.95
