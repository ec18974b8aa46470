"""A worker that holds another extractor than a collection's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torchvision.models

from producer import Producer
from tasks.connection import connect_redis
from tasks.errors import ExtractorMismatch
from tasks.names import worker_presence
from tasks.settings import Settings
from tests.photographs import photographs
from tests.stack import WorkerProcess
from tests.waiting import LIMIT_S


def test_a_collection_of_another_extractor_is_refused_by_name(
    start_worker: Callable[..., WorkerProcess], producer: Producer, settings: Settings, tmp_path: Path
) -> None:
    start_worker().stop()  # publishes the starter collection, which is pinned to `compact`
    torch.save(torchvision.models.resnet18(weights=None).state_dict(), tmp_path / "resnet18.pth")
    worker = start_worker(AII_EXTRACTOR=f"resnet18+gem@{tmp_path}/resnet18.pth#size=64")
    job = producer.activate(photographs()["chelsea.png"])
    with pytest.raises(ExtractorMismatch, match=r"'starter' is pinned to extractor compact .* holds resnet18\+gem-64"):
        job.wait(LIMIT_S)
    assert worker.alive()


def test_a_worker_whose_extractor_cannot_be_loaded_says_why_and_does_not_start(
    start_worker: Callable[..., WorkerProcess], settings: Settings
) -> None:
    with pytest.raises(AssertionError, match=r"aii worker: There is no weights file /nowhere/sscd\.torchvision\.pt"):
        start_worker(AII_EXTRACTOR="sscd@/nowhere/sscd.torchvision.pt")
    with connect_redis(settings) as client:
        assert client.keys(worker_presence("*")) == []
