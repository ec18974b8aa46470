"""What the images hold, and how they run: killed, stopped, as any user."""

from __future__ import annotations

import json

from producer import Producer
from producer.status import warm_workers
from tasks.settings import Settings
from tests.containers.engine import Engine
from tests.containers.images import Images, variables
from tests.photographs import crops
from tests.waiting import LIMIT_S, wait_for

# Names and versions of what is installed, but for what a new virtual environment has.
INSTALLED = """
import json, re
from importlib.metadata import distributions
parts = [(re.sub("[-_.]+", "-", one.name).lower(), one.version) for one in distributions()]
print(json.dumps([part for part in parts if part[0] not in ("pip", "setuptools", "active-image-indexing")]))
"""


def test_workers_of_one_host_name_do_jobs_are_killed_and_stopped_without_losing_one(
    settings: Settings, engine: Engine, images: Images
) -> None:
    image, given = images.of("worker-cpu"), variables(settings) | {"AII_LEASE_S": "10", "AII_GRACE_S": "2"}
    workers = [images.run(image, given, detached=True) for _ in range(2)]
    try:
        with Producer.connect(settings) as producer:
            wait_for(lambda: len(warm_workers(settings)) == 2, "two workers did not get ready")
            jobs = [producer.activate(crop, options={"steps": 1}) for crop in crops(40)]
            wait_for(lambda: any(job.state().closed for job in jobs), "no job ended")
            engine("kill", workers[0])
            assert len(dict(producer.wait_all(jobs, LIMIT_S))) == len(jobs)
            engine("stop", "-t", "60", workers[1])
            assert engine("inspect", "--format", "{{.State.ExitCode}}", workers[1]).strip() == "0"
    finally:
        for worker in workers:
            engine("rm", "-f", worker, check=False)


def test_the_gateways_image_administers_buckets_as_any_user(settings: Settings, images: Images) -> None:
    assert "results" in images.run(images.of("gateway"), variables(settings), "aii", "buckets", "init")


def test_an_image_lists_its_packages_and_says_what_it_is(engine: Engine, images: Images) -> None:
    image = images.of("gateway")
    listed = json.loads(images.run(image, {}, "cat", "/opt/aii/sbom.cdx.json"))
    assert (listed["bomFormat"], listed["metadata"]["component"]["name"]) == ("CycloneDX", "active-image-indexing")
    known = {
        (part["name"], part["version"]) for part in listed["components"] if part["externalReferences"][0]["hashes"]
    }
    found = json.loads(images.run(image, {}, "/opt/venv/bin/python", "-c", INSTALLED))
    assert {tuple(part) for part in found} <= known
    (labels,) = json.loads(engine("inspect", "--format", "[{{json .Config.Labels}}]", image))
    names = {"title", "description", "version", "revision", "licenses"}
    assert {f"org.opencontainers.image.{name}" for name in names} <= set(labels)
    assert "gateway" in labels["org.opencontainers.image.description"]


def test_an_image_keeps_no_address_of_the_index_it_was_made_from(images: Images) -> None:
    looked_for = "find / -xdev \\( -name pip.conf -o -path '/run/secrets/*' \\) -type f -size +0 | grep . || echo none"
    assert images.run(images.of("gateway"), {}, "sh", "-c", looked_for) == "none"
