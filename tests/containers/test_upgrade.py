"""An image of the previous version is replaced while jobs are queued: the new one finishes all of them."""

from __future__ import annotations

import base64
import io
import json
import subprocess
import tarfile
from pathlib import Path

import pytest

from producer import Producer
from tasks.ledger.states import JobState
from tasks.settings import Settings
from tests.buckets import made_bucket
from tests.containers.engine import Engine
from tests.containers.images import ROOT, Images, variables
from tests.photographs import crops
from tests.waiting import LIMIT_S, wait_for

PREVIOUS = "0.1.0"
COUNT = 24
# The previous version's code, on the packages of today's image: its own lock is none.
RECIPE = """
ARG BASE
FROM ${BASE}
USER root
RUN rm -rf /opt/aii/producer /opt/aii/tasks /opt/aii/workers /opt/aii/deploy
COPY producer /opt/aii/producer
COPY tasks /opt/aii/tasks
COPY workers /opt/aii/workers
COPY deploy /opt/aii/deploy
USER 10001:0
"""
# What an application of the previous version does; prints the ids of its jobs.
SUBMIT = """
import base64, json, sys
from producer import Producer
from tasks.messages import ActivationOptions
producer = Producer.connect()
images = map(base64.b64decode, sys.argv[1].split(","))
print(json.dumps([producer.activate(image, options=ActivationOptions(steps=1)).job_id for image in images]))
"""


def git(*arguments: str) -> bytes:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, check=False)
    return done.stdout if done.returncode == 0 else b""


def previous_revision() -> str:
    """Its tag, or the last revision whose changelog knows no later version."""
    tag = f"v{PREVIOUS}"
    if git("rev-parse", "--verify", "--quiet", f"{tag}^{{commit}}"):
        return tag
    begun = git("log", "--format=%H", "-S## 0.2.0", "--", ".github/CHANGELOG.md").decode().split()
    revision = f"{begun[-1]}^" if begun else ""
    if not revision or not git("rev-parse", "--verify", "--quiet", revision):
        pytest.skip(f"the repository has neither a tag {tag} nor that version's history")
    return revision


@pytest.fixture(scope="module")
def previous(tmp_path_factory: pytest.TempPathFactory, images: Images) -> str:
    folder: Path = tmp_path_factory.mktemp("previous")
    with tarfile.open(fileobj=io.BytesIO(git("archive", previous_revision()))) as archive:
        archive.extractall(folder, filter="data")
    (folder / "Recipe").write_text(RECIPE)
    (folder / "deploy" / "Dockerfile.dockerignore").unlink(missing_ok=True)
    base = images.of("worker-cpu")
    return images.build("aii-test-previous", folder / "Recipe", folder, "--build-arg", f"BASE={base}")


def test_jobs_that_the_previous_version_left_are_done_by_this_one(
    settings: Settings, previous: str, engine: Engine, images: Images
) -> None:
    settings = settings.model_copy(update={"bucket_collections": "collections-of-upgrade"})
    made_bucket(settings, settings.bucket_collections)
    given = variables(settings) | {
        "AII_BUCKET_COLLECTIONS": settings.bucket_collections, "AII_LEASE_S": "5", "AII_GRACE_S": "2",
        "AII_ACTIVATE_THREADS": "1",
    }  # fmt: skip
    photos = crops(COUNT, side=64)
    first, rest = (",".join(base64.b64encode(one).decode() for one in some) for some in (photos[:12], photos[12:]))
    started: list[str] = []
    try:
        started.append(images.run(previous, given, detached=True))
        job_ids = json.loads(images.run(previous, given, "python", "-c", SUBMIT, first))
        with Producer.connect(settings) as producer:
            wait_for(lambda: JobState.DONE in producer.ledger.states(job_ids), "the previous version did no job")
            engine("kill", started[0])
            job_ids += (queued := json.loads(images.run(previous, given, "python", "-c", SUBMIT, rest)))
            assert set(producer.ledger.states(queued)) == {JobState.QUEUED}
            started.append(images.run(images.of("worker-cpu"), given, detached=True))
            ended = dict(producer.wait_for(job_ids, LIMIT_S))
            again = [producer.activate(crop, options={"steps": 1}) for crop in photos]
    finally:
        for container in started:
            engine("rm", "-f", container, check=False)
    assert "failed" not in {result.status for result in ended.values()}
    assert len(ended) == len(set(job_ids)) == COUNT
    assert {job.job_id for job in again} == set(job_ids)  # the same requests are the same jobs
    assert not any(job.new for job in again)
