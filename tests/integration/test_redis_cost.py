"""What an image costs Redis, counted by Redis itself: a fleet is bounded by it."""

from __future__ import annotations

import pytest

from producer import Producer
from tasks.connection import connect_redis
from tasks.messages import ActivationOptions
from tasks.settings import Settings
from tests.benchmarks.redis import activate_all, monitored, of_jobs
from tests.photographs import crops

COUNT = 24


@pytest.mark.usefixtures("shared_worker")
def test_an_image_costs_redis_few_commands(producer: Producer, settings: Settings) -> None:
    """From its submission to its end, those within scripts included; what is done once a second is not of an image."""
    files, options = crops(2 * COUNT, side=96), ActivationOptions(steps=1)
    activate_all(producer, files[:COUNT], options)  # scripts are loaded, and the journal is there
    with connect_redis(settings) as client, monitored(client) as commands:
        activate_all(producer, files[COUNT:], options)
    # How often the producer asks for states again depends on how long the images take.
    counted = [command for command in of_jobs(commands) if not command.text.endswith(" state seq")]
    sent = [command for command in counted if not command.by_script]
    # Calls of jobs that are at work together share scripts: more or fewer of them, by how they meet.
    assert len(sent) / COUNT <= 8, [command.text[:100] for command in sent][-12:]
    assert len(counted) / COUNT <= 45
