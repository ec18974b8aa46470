"""The compact extractor: its features, its input, its weights file, and one step of its training."""

import hashlib
import json
import logging
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image

from tasks.errors import CorruptExtractor, ExtractorMismatch, ExtractorMissing, InvalidSetting
from tests.images_zoo import LIMITS
from workers.extractors import registry
from workers.extractors.base import Extractor
from workers.extractors.compact import CompactNet
from workers.extractors.geometry import Chain
from workers.extractors.registry import load_extractor, pick_device, why_no_gpu
from workers.extractors.training.losses import Memory, entropy_loss, info_nce
from workers.extractors.training.settings import TrainingSettings
from workers.extractors.training.train import Trainer
from workers.extractors.weights_file import read_weights, write_weights
from workers.images.edits import EDITS
from workers.images.tensors import to_input

CPU = torch.device("cpu")
PHOTOS = ("astronaut", "coffee", "chelsea", "rocket")


@pytest.fixture(scope="module")
def extractor() -> Extractor:
    return load_extractor("compact", CPU)


@pytest.fixture(scope="module")
def photos() -> list[Image.Image]:
    return [Image.fromarray(getattr(skimage.data, name)()) for name in PHOTOS]


def inputs_of(extractor: Extractor, images: list[Image.Image]) -> torch.Tensor:
    return torch.stack([to_input(np.asarray(image), extractor.input_size) for image in images])


# The extractor


def test_features_have_the_promised_shape_type_and_norm(extractor: Extractor, photos: list[Image.Image]) -> None:
    features = extractor(inputs_of(extractor, photos))
    assert features.shape == (4, extractor.dimension)
    assert features.dtype == torch.float32
    assert torch.allclose(features.norm(dim=1), torch.ones(4), atol=1e-5)


def test_an_images_feature_does_not_depend_on_its_batch(extractor: Extractor, photos: list[Image.Image]) -> None:
    inputs = inputs_of(extractor, photos)
    alone = torch.cat([extractor(image[None]) for image in inputs])
    assert torch.allclose(alone, extractor(inputs), atol=1e-5)


def test_the_gradient_reaches_the_image_and_no_weight(extractor: Extractor, photos: list[Image.Image]) -> None:
    inputs = inputs_of(extractor, photos[:1]).requires_grad_(True)
    extractor(inputs)[0, 0].backward()
    assert inputs.grad is not None
    assert torch.isfinite(inputs.grad).all()
    assert inputs.grad.abs().sum() > 0


@pytest.mark.parametrize("shade", [0.0, 0.5, 1.0])
def test_a_plain_image_gives_finite_features_and_gradients(extractor: Extractor, shade: float) -> None:
    inputs = torch.full((1, 3, extractor.input_size, extractor.input_size), shade, requires_grad=True)
    features = extractor(inputs)
    features[0, 0].backward()
    assert inputs.grad is not None
    assert torch.isfinite(features).all()
    assert torch.isfinite(inputs.grad).all()


@pytest.mark.parametrize("name", [name for name in EDITS if name != "random"])
def test_an_edited_photograph_is_nearest_to_its_own_original(
    name: str, extractor: Extractor, photos: list[Image.Image]
) -> None:
    originals = extractor(inputs_of(extractor, photos))
    edited = extractor(inputs_of(extractor, [EDITS[name](photo, 0) for photo in photos]))
    assert (edited @ originals.T).argmax(1).tolist() == [0, 1, 2, 3]


def test_an_image_of_another_size_is_refused(extractor: Extractor) -> None:
    with pytest.raises(ValueError, match="expected"):
        extractor(torch.zeros(1, 3, extractor.input_size + 1, extractor.input_size))


# The input


def test_the_input_is_a_square_in_the_unit_range() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (50, 91, 3), dtype=np.uint8)
    image = to_input(pixels, 32)
    assert image.shape == (3, 32, 32)
    assert image.dtype == torch.float32
    assert 0.0 <= float(image.min()) <= float(image.max()) <= 1.0


def test_the_input_keeps_the_channels_in_order() -> None:
    pixels = np.zeros((10, 20, 3), dtype=np.uint8)
    pixels[..., 0], pixels[..., 1] = 255, 51
    image = to_input(pixels, 8)
    assert torch.allclose(image.mean((1, 2)), torch.tensor([1.0, 0.2, 0.0]), atol=1e-6)


def test_a_shrunk_input_averages_fine_patterns() -> None:
    stripes = np.zeros((64, 64, 3), dtype=np.uint8)
    stripes[::2] = 255
    assert torch.allclose(to_input(stripes, 8), torch.tensor(0.5), atol=0.05)


@pytest.mark.parametrize("pixels", [np.zeros((8, 8), np.uint8), np.zeros((8, 8, 4), np.uint8), np.zeros((8, 8, 3))])
def test_pixels_of_another_shape_or_type_are_refused(pixels: np.ndarray) -> None:
    with pytest.raises(ValueError, match="uint8"):
        to_input(pixels, 8)


# The weights file


def test_the_shipped_weights_are_the_pinned_ones_and_small() -> None:
    data = registry.COMPACT_WEIGHTS.read_bytes()
    sidecar = json.loads(registry.COMPACT_WEIGHTS.with_suffix(".json").read_text())
    assert hashlib.sha256(data).hexdigest() == sidecar["sha256"] == load_extractor("compact", CPU).sha256
    assert len(data) <= 8_000_000


def test_an_unknown_name_is_missing() -> None:
    with pytest.raises(ExtractorMissing, match="nothing-like-it"):
        load_extractor("nothing-like-it", CPU)


def test_absent_weights_are_missing(tmp_path: Path) -> None:
    with pytest.raises(ExtractorMissing):
        read_weights(tmp_path / "compact.safetensors")


def test_weights_with_one_flipped_bit_are_a_mismatch(tmp_path: Path) -> None:
    path = tmp_path / "compact.safetensors"
    write_weights(CompactNet(), path, {})
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(data)
    with pytest.raises(ExtractorMismatch, match="sha256"):
        read_weights(path)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "compact.safetensors"
    net = CompactNet()
    net.project = torch.nn.Linear(net.project.in_features, 128, bias=False)
    write_weights(net, path, {})
    with pytest.raises(CorruptExtractor, match=r"project\.weight"):
        read_weights(path)


def test_weights_survive_a_round_trip(tmp_path: Path) -> None:
    torch.manual_seed(1)
    net = CompactNet().eval()
    path = tmp_path / "compact.safetensors"
    write_weights(net, path, {})
    images = torch.rand(2, 3, 64, 64)
    assert torch.equal(read_weights(path)[0](images), net(images))


# The training


def test_rotating_by_a_right_angle_only_moves_pixels() -> None:
    pictures = torch.rand(2, 3, 16, 16)
    chain = Chain(torch.tensor([1.0, 2.0]))
    chain.rotate(torch.full((2,), 90.0), torch.tensor([True, True]), torch.zeros(2, 3, 1, 1))
    turned = chain.render(pictures, 16)
    directions = [torch.allclose(turned, torch.rot90(pictures, k, (2, 3)), atol=1e-4) for k in (1, 3)]
    assert any(directions)
    assert torch.allclose(chain.aspects, torch.tensor([1.0, 0.5]), atol=1e-4)


def test_placing_a_picture_shows_the_backdrop_around_it() -> None:
    chain = Chain(torch.ones(1))
    chain.place(torch.tensor([[1.0, 0.5]]), torch.tensor([[0.0, 0.5]]), torch.ones(1, 3, 1, 1))
    shown = chain.render(torch.zeros(1, 3, 16, 16), 16)
    assert (shown[:, :, :8] == 1).all()
    assert (shown[:, :, 8:] == 0).all()


def test_the_loss_is_least_where_every_view_finds_its_own() -> None:
    features = torch.eye(8)
    memory = Memory(4, 8, CPU)
    right, hit_rate = info_nce(features, features, torch.arange(8), memory, 0.05)
    wrong, _ = info_nce(features, features.roll(1, 0), torch.arange(8), memory, 0.05)
    assert float(hit_rate) == 1.0
    assert right < wrong


def test_the_memory_gives_negatives_but_never_the_image_itself() -> None:
    features, ids = torch.eye(4), torch.arange(4)
    memory = Memory(4, 4, CPU)
    without, _ = info_nce(features, features, ids, memory, 0.05)
    memory.push(features, ids)
    own, _ = info_nce(features, features, ids, memory, 0.05)
    memory.push(features, ids + 10)
    foreign, _ = info_nce(0.9 * features + 0.1, features, ids, memory, 0.05)
    assert torch.allclose(own, without)
    assert foreign > own + 0.5


def test_the_entropy_loss_prefers_features_that_lie_apart() -> None:
    ids = torch.arange(4)
    close = torch.nn.functional.normalize(torch.ones(4, 8) + 0.01 * torch.eye(4, 8), dim=1)
    assert entropy_loss(torch.eye(4, 8), ids) < entropy_loss(close, ids)


def test_a_training_run_can_be_resumed_where_it_stopped(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for i, name in enumerate(PHOTOS):
        Image.fromarray(getattr(skimage.data, name)()).resize((200, 150)).save(folder / f"{i}.jpg")
    settings = TrainingSettings((folder,), tmp_path / "net.safetensors", 1.0, LIMITS, batch=4, memory=8)
    first = Trainer(settings)
    first.net.train()
    before = first.net.project.weight.detach().clone()
    assert np.isfinite(first.step()["loss"])
    assert not torch.equal(first.net.project.weight, before)
    first.elapsed_s = 30.0
    first.save()
    second = Trainer(settings)
    second.restore()
    assert (second.step_count, second.progress) == (1, 0.5)
    assert torch.equal(second.net.project.weight, first.net.project.weight)
    assert read_weights(settings.out)[1] == hashlib.sha256(settings.out.read_bytes()).hexdigest()


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
@pytest.mark.parametrize("name", ["cuda", "cuda:3", "tpu", "mps"])
def test_a_device_that_is_not_there_is_named_and_what_to_do(name: str) -> None:
    with pytest.raises(InvalidSetting, match=f"AII_DEVICE is {name}.*(set it to auto or cpu|it takes auto, cpu)"):
        pick_device(name)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_worker_on_its_own_choice_says_why_it_takes_the_cpu(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        assert pick_device("auto") == CPU
    assert why_no_gpu() in caplog.text
