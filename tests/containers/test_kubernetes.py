"""A Deployment of deploy/kubernetes does a job: its command, user, file systems and variables fit the image."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from producer import Producer
from producer.status import warm_workers
from tasks.settings import Settings
from tests.containers.engine import Engine
from tests.containers.images import ROOT, Images, variables
from tests.photographs import crops
from tests.waiting import LIMIT_S, wait_for


def played(name: str, image: str, environment: dict[str, str]) -> str:
    """The Deployment with an image, its secrets beside its settings (podman 4.3 reads no Secret), and without ports and
    probes (it makes them calls of curl in the container)."""
    deployment = yaml.safe_load((ROOT / "deploy" / "kubernetes" / "base" / f"{name}.yaml").read_text())
    deployment["spec"]["replicas"] = 1
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    for unused in ("ports", "startupProbe", "livenessProbe", "readinessProbe"):
        del container[unused]
    container |= {"image": image, "imagePullPolicy": "Never", "envFrom": [{"configMapRef": {"name": "aii-settings"}}]}
    settings = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "aii-settings"}, "data": environment}
    return yaml.safe_dump_all([settings, deployment])


@pytest.fixture
def deployed(settings: Settings, tmp_path: Path, engine: Engine, images: Images) -> Iterator[None]:
    if not engine.is_podman:
        pytest.skip("only podman runs the objects of Kubernetes")
    (file := tmp_path / "deployment.yaml").write_text(
        played("worker-activate", images.of("worker-cpu"), variables(settings))
    )
    try:
        engine("play", "kube", "--network", "host", str(file))
        yield
    finally:
        engine("play", "kube", "--down", str(file), check=False)


@pytest.mark.usefixtures("deployed")
def test_the_deployment_of_workers_does_a_job(settings: Settings) -> None:
    wait_for(lambda: warm_workers(settings), "the pod's worker does not get ready")
    with Producer.connect(settings) as producer:
        assert producer.activate(crops(1)[0], options={"steps": 1}).wait(LIMIT_S).status in ("activated", "passive")
