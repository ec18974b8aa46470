"""Extractors that people already have, fetched over real HTTP and real S3."""

from __future__ import annotations

import logging
import pickle
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import torchvision.models

from tasks.errors import AiiError, CorruptExtractor, ExtractorMismatch, ExtractorMissing
from tasks.names import sha256_hex
from tasks.storage import Bucket, ObjectStore
from tests.file_server import FileServer
from workers.extractors import probes
from workers.extractors.network import IMAGENET_MEAN, IMAGENET_STD
from workers.extractors.registry import COMPACT_WEIGHTS, load_extractor

CPU = torch.device("cpu")
IMAGES = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(5))


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Downloads and pins of this test alone."""
    monkeypatch.setenv("AII_STATE_DIR", str(tmp_path / "state"))
    return tmp_path / "state" / "extractors"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with random networks in the layouts in which real ones are published."""
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    net = torchvision.models.resnet50(weights=None, num_classes=512)
    torch.save({f"backbone.{k}": v for k, v in net.state_dict().items()}, folder / "sscd_random.torchvision.pt")
    small = torchvision.models.resnet18(weights=None)
    torch.save(small.state_dict(), folder / "resnet18.pth")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.trace(small.eval(), IMAGES), folder / "small.torchscript.pt")
    return folder


@pytest.fixture
def server(weights: Path, tmp_path: Path) -> Iterator[FileServer]:
    folder = tmp_path / "served"
    shutil.copytree(weights, folder)
    with FileServer(folder).running() as server:
        yield server


def load(name: str, store: ObjectStore | None = None) -> torch.Tensor:
    """Features of IMAGES."""
    return load_extractor(name, CPU, store, precision="float32")(IMAGES)


def colours() -> torch.Tensor:
    mean, std = (torch.tensor(v)[:, None, None] for v in (IMAGENET_MEAN, IMAGENET_STD))
    return (IMAGES - mean) / std


def test_sscd_is_fetched_from_a_url_and_gives_what_a_plain_resnet50_with_gem_gives(
    server: FileServer, weights: Path
) -> None:
    net = torchvision.models.resnet50(weights=None, num_classes=512).eval()
    state = torch.load(weights / "sscd_random.torchvision.pt", weights_only=True)
    net.load_state_dict({k.removeprefix("backbone."): v for k, v in state.items()})
    trunk = torch.nn.Sequential(*list(net.children())[:-2])
    with torch.no_grad():
        expected = F.normalize(net.fc(trunk(colours()).clamp(min=1e-6).pow(3).mean((2, 3)).pow(1 / 3)))
    extractor = load_extractor(server.url("sscd_random.torchvision.pt") + "#size=64", CPU, None, precision="float32")
    assert (extractor.name, extractor.dimension, extractor.input_size) == ("sscd-64", 512, 64)
    assert extractor.sha256 == sha256_hex((weights / "sscd_random.torchvision.pt").read_bytes())
    assert torch.allclose(extractor(IMAGES), expected, atol=1e-5)


def test_sscd_takes_squares_of_288_pixels_unless_told_otherwise(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "PROBES", 2)  # of all sixteen, at this size, it takes half a minute
    extractor = load_extractor(str(weights / "sscd_random.torchvision.pt"), CPU)
    assert (extractor.name, extractor.input_size) == ("sscd-288", 288)
    image = torch.rand(1, 3, 288, 288, requires_grad=True)
    extractor(image)[0, 0].backward()
    assert image.grad is not None
    assert image.grad.abs().sum() > 0


def test_a_url_is_downloaded_once_and_then_served_from_disk(server: FileServer) -> None:
    url = "resnet18+avg@" + server.url("resnet18.pth") + "#size=64"
    first = load(url)
    server.cut = 0
    assert torch.equal(load(url), first)
    assert server.requests == 1


def test_a_file_that_was_replaced_at_its_url_is_refused_by_its_pin(server: FileServer, state: Path) -> None:
    url = "resnet18+gem@" + server.url("resnet18.pth")
    load(url + "#size=64")
    for kept in state.glob("?" * 64):
        kept.unlink()
    shutil.copy(server.folder / "small.torchscript.pt", server.folder / "resnet18.pth")
    with pytest.raises(ExtractorMismatch, match=r"replaced on purpose, delete its line from .*pins\.json"):
        load(url + "#size=64")


def test_a_download_that_is_cut_off_is_refused_and_nothing_of_it_is_kept(server: FileServer, state: Path) -> None:
    server.cut = 100_000
    with pytest.raises(CorruptExtractor, match="cut off after"):
        load("resnet18+gem@" + server.url("resnet18.pth"))
    assert list(state.iterdir()) == []


def test_what_is_not_there_is_missing(server: FileServer) -> None:
    with pytest.raises(ExtractorMissing, match="404"):
        load("sscd@" + server.url("nothing.pt"))
    with pytest.raises(ExtractorMissing, match="cannot be reached"):
        load("sscd@http://127.0.0.1:1/nothing.pt")
    with pytest.raises(ExtractorMissing, match="no weights file"):
        load("sscd@/nowhere/nothing.pt")


def test_a_digest_in_the_name_is_checked(weights: Path) -> None:
    with pytest.raises(ExtractorMismatch, match="was expected"):
        load(f"resnet18+gem@{weights}/resnet18.pth#sha256={'0' * 64}")


@pytest.mark.parametrize("pooling", ["gem", "avg"])
def test_a_torchvision_backbone_is_pooled_as_told(weights: Path, pooling: str) -> None:
    net = torchvision.models.resnet18(weights=None).eval()
    net.load_state_dict(torch.load(weights / "resnet18.pth", weights_only=True))
    with torch.no_grad():
        maps = torch.nn.Sequential(*list(net.children())[:-2])(colours())
    pooled = maps.mean((2, 3)) if pooling == "avg" else maps.clamp(min=1e-6).pow(3).mean((2, 3)).pow(1 / 3)
    features = load(f"resnet18+{pooling}@{weights}/resnet18.pth#size=64")
    assert torch.allclose(features, F.normalize(pooled), atol=1e-5)


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "regnet_y_400mf", "efficientnet_b0"])
def test_backbones_of_other_families_work_as_well(tmp_path: Path, name: str) -> None:
    torch.save(torchvision.models.get_model(name, weights=None).state_dict(), tmp_path / "net.pth")
    features = load(f"{name}+gem@{tmp_path}/net.pth#size=64")
    assert torch.allclose(features.norm(dim=1), torch.ones(2), atol=1e-5)


def test_a_torchscript_file_gives_what_it_gave_when_it_was_saved(weights: Path) -> None:
    net = torchvision.models.resnet18(weights=None).eval()
    net.load_state_dict(torch.load(weights / "resnet18.pth", weights_only=True))
    with torch.no_grad():
        expected = F.normalize(net(colours()))
    assert torch.allclose(load(f"{weights}/small.torchscript.pt#size=64"), expected, atol=1e-5)


def test_torchscript_from_a_network_is_refused_unless_its_digest_is_known(server: FileServer) -> None:
    url = server.url("small.torchscript.pt")
    with pytest.raises(ExtractorMismatch, match="may run code"):
        load(url)
    assert server.requests == 0
    digest = sha256_hex((server.folder / "small.torchscript.pt").read_bytes())
    assert load(f"{url}#size=64&sha256={digest}").shape == (2, 1000)


def test_weights_come_from_the_stores_bucket_of_extractors(weights: Path, store: ObjectStore) -> None:
    store.ensure_buckets()
    store.put_file(Bucket.EXTRACTORS, "resnet18.pth", weights / "resnet18.pth")
    features = load("resnet18+gem@s3://extractors/resnet18.pth#size=64", store)
    assert torch.equal(features, load(f"resnet18+gem@{weights}/resnet18.pth#size=64"))
    with pytest.raises(ExtractorMissing, match="s3://extractors/other"):
        load("sscd@s3://extractors/other.pt", store)
    with pytest.raises(ExtractorMissing, match="AII_BUCKET_EXTRACTORS"):
        load("sscd@s3://originals/resnet18.pth", store)


@pytest.mark.parametrize(
    ("name", "error", "says"),
    [
        ("sscd@resnet18.pth", CorruptExtractor, "missing .* unexpected"),
        ("resnet34+gem@resnet18.pth", CorruptExtractor, "missing .* layer1.2"),
        ("sscd@wide.pt", CorruptExtractor, r"fc\.weight is \(128, 2048\), not \(512, 2048\)"),
        ("sscd@garbage.pt", CorruptExtractor, "not a state dict"),
        ("sscd@half.pt", CorruptExtractor, "not a state dict"),
        ("sscd@code.pt", CorruptExtractor, "not a state dict"),
        ("sscd@list.pt", CorruptExtractor, "something else"),
        ("garbage.torchscript.pt", CorruptExtractor, "not a TorchScript"),
        ("nan.torchscript.pt", CorruptExtractor, "no numbers"),
        ("vit_b_16+gem@resnet18.pth", CorruptExtractor, "another network"),
        ("swin_t+gem@swin.pth", ExtractorMissing, "pooled feature map"),
        ("resnet19+gem@resnet18.pth", ExtractorMissing, "no network 'resnet19'"),
        ("resnet18.pth", ExtractorMissing, "No extractor is named"),
        ("resnet18+max@resnet18.pth", ExtractorMissing, "No extractor is named"),
        ("resnet18+gem@resnet18.pth#colour=red", ExtractorMissing, "No extractor is named"),
        ("resnet18+gem@resnet18.pth#size=big", ExtractorMissing, "No extractor is named"),
        ("sscd@ftp://host/file.pt", ExtractorMissing, "cannot be fetched"),
    ],
)
def test_what_cannot_be_used_is_refused_by_name(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, error: type[AiiError], says: str
) -> None:
    _spoilt(weights, tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=says):
        load(name)
    assert not (tmp_path / "code-ran").exists()


class _Malicious:
    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (eval, (f"open({str(self.proof)!r}, 'w')",))


def _spoilt(weights: Path, folder: Path) -> None:
    """Files that are not what their names promise."""
    whole = (weights / "resnet18.pth").read_bytes()
    (folder / "resnet18.pth").write_bytes(whole)
    (folder / "half.pt").write_bytes(whole[: len(whole) // 2])
    (folder / "garbage.pt").write_bytes(b"no network at all" * 100)
    (folder / "garbage.torchscript.pt").write_bytes(whole)
    (folder / "code.pt").write_bytes(pickle.dumps(_Malicious(folder / "code-ran"), protocol=2))
    torch.save([torch.zeros(1)], folder / "list.pt")
    torch.save(torchvision.models.swin_t(weights=None).state_dict(), folder / "swin.pth")
    state = torch.load(weights / "sscd_random.torchvision.pt", weights_only=True)
    torch.save({**state, "backbone.fc.weight": torch.zeros(128, 2048)}, folder / "wide.pt")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        broken = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.LazyLinear(4))
        broken(torch.zeros(1, 3, 288, 288))
        torch.nn.init.constant_(broken[1].bias, float("nan"))
        torch.jit.save(torch.jit.trace(broken, torch.zeros(1, 3, 288, 288)), folder / "nan.torchscript.pt")


def test_the_shipped_weights_can_be_served_from_elsewhere(tmp_path: Path) -> None:
    shutil.copy(COMPACT_WEIGHTS, tmp_path / "mine.safetensors")
    extractor = load_extractor(str(tmp_path / "mine.safetensors"), CPU)
    assert (extractor.name, extractor.sha256) == ("compact", load_extractor("compact", CPU).sha256)


def test_a_load_says_what_was_loaded(weights: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        load(f"resnet18+gem@{weights}/resnet18.pth#size=64")
    assert "resnet18+gem-64" in caplog.text
    assert "512-d" in caplog.text
