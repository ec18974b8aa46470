"""The manifests of deploy/kubernetes and the units of deploy/systemd fit Kubernetes, systemd and this code."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from producer.cli import aii
from tasks.settings import Settings
from tasks.shards import Shard
from tasks.state_folder import OTHER_VARIABLES
from tests.unit.test_reference import parse

FOLDER = Path(__file__).parents[2] / "deploy" / "kubernetes"
UNITS = sorted((FOLDER.parent / "systemd").glob("*.service"))
VERSIONS = ("1.30", "1.34")
EXAMPLE = FOLDER / "overlays" / "example"
KNOWN = {f"AII_{name.upper()}" for name in Settings.model_fields} | set(OTHER_VARIABLES)


def documents() -> list[tuple[Path, dict[str, Any]]]:
    """What is no patch, by file."""
    patches = ("mount.yaml", "replicas.yaml", "delete.yaml")
    files = [path for path in sorted(FOLDER.rglob("*.yaml")) if path.name not in patches]
    return [(path.relative_to(FOLDER), document) for path in files for document in yaml.safe_load_all(path.read_text())]


DOCUMENTS = documents()
PATCHES = {Path("components/gpu/worker-activate.yaml")}
KUSTOMIZATIONS = [(path, d) for path, d in DOCUMENTS if d["kind"] in ("Kustomization", "Component")]
BUILT_IN = [(path, d) for path, d in DOCUMENTS
            if d["apiVersion"].partition("/")[0] in ("v1", "apps", "batch", "policy", "networking.k8s.io")]  # fmt: skip
OF_PODS = [(path, d["spec"]) for path, d in BUILT_IN
           if d["kind"] in ("Deployment", "StatefulSet", "Job") and path not in PATCHES]  # fmt: skip
PODS = [(path, spec["template"]["spec"]) for path, spec in OF_PODS]


def named(item: tuple[Path, dict[str, Any]]) -> str:
    return f"{item[0]}-{item[1].get('metadata', {}).get('name', '')}" if isinstance(item, tuple) else str(item)


def validate(item: dict[str, Any], version: str) -> None:
    """Raises ValueError for what Kubernetes would not take."""
    import kubernetes_validate  # noqa: PLC0415  # takes two seconds, of each process of tests

    try:
        kubernetes_validate.validate(item, version, strict=True)
    except kubernetes_validate.ValidationError as error:
        raise ValueError(str(error)) from error


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("item", [item for item in BUILT_IN if item[0] not in PATCHES], ids=named)
def test_every_object_agrees_with_the_schema_of_kubernetes(item: tuple[Path, dict[str, Any]], version: str) -> None:
    validate(item[1], version)


def test_a_misspelt_field_would_be_noticed() -> None:
    wrong = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"}, "spec": {"portz": []}}
    with pytest.raises(ValueError, match="portz"):
        validate(wrong, VERSIONS[0])


def test_every_file_is_part_of_a_kustomization_and_every_name_in_one_is_a_file() -> None:
    there = {path.relative_to(FOLDER) for path in FOLDER.rglob("*") if path.is_file()}
    used = {path for path, _ in KUSTOMIZATIONS}
    for path, k in KUSTOMIZATIONS:
        names = [*k.get("resources", []), *k.get("components", []), *(p["path"] for p in k.get("patches", []))]
        names += [name for secret in k.get("secretGenerator", []) for name in secret["envs"]]
        for name in names:
            found = (FOLDER / path).parent.joinpath(name).resolve().relative_to(FOLDER)
            used.add(found / "kustomization.yaml" if (FOLDER / found).is_dir() else found)
    assert used == there


@pytest.mark.parametrize("item", OF_PODS, ids=lambda item: str(item[0]))
def test_every_pod_runs_without_rights_and_within_limits(item: tuple[Path, dict[str, Any]]) -> None:
    _, spec = item
    pod = spec["template"]["spec"]
    claimed = {claim["metadata"]["name"] for claim in spec.get("volumeClaimTemplates", [])}
    assert pod["securityContext"]["runAsNonRoot"]
    assert (pod["securityContext"]["runAsGroup"], pod["automountServiceAccountToken"]) == (0, False)
    for container in pod["containers"]:
        rights = container["securityContext"]
        assert (rights["readOnlyRootFilesystem"], rights["allowPrivilegeEscalation"]) == (True, False)
        assert rights["capabilities"] == {"drop": ["ALL"]}
        assert set(container["resources"]["requests"]) == {"cpu", "memory"}
        assert "memory" in container["resources"]["limits"]
        assert {m["name"] for m in container["volumeMounts"]} == {v["name"] for v in pod["volumes"]} | claimed


def test_workers_are_given_longer_to_end_than_they_take() -> None:
    graces = [pod["terminationGracePeriodSeconds"] for path, pod in PODS if path.name.startswith("worker")]
    assert len(graces) == 3
    assert min(graces) > Settings.model_fields["stop_timeout_s"].default


def test_a_node_with_the_last_pod_of_its_kind_can_be_drained() -> None:
    budgets = [d["spec"] for _, d in DOCUMENTS if d["kind"] == "PodDisruptionBudget"]
    assert len(budgets) == 4
    assert [budget.get("maxUnavailable") for budget in budgets] == [1] * 4


def test_no_pod_is_restarted_because_a_service_is_away() -> None:
    probes = [
        c["livenessProbe"]["httpGet"]["path"] for _, pod in PODS for c in pod["containers"] if "livenessProbe" in c
    ]
    assert sorted(probes) == ["/healthcheck", *["/live"] * 4]


def test_of_eight_shards_of_workers_each_quarter_of_the_cells_has_two() -> None:
    ((_, spec),) = [(path, spec) for path, spec in OF_PODS if path.name == "worker-shard.yaml"]
    (container,) = spec["template"]["spec"]["containers"]
    shell, option, line = container["command"]
    assert line.startswith("exec ")  # signals reach the worker
    shards = [
        subprocess.check_output(
            [shell, option, line.replace("exec python", "echo")], text=True, env={"POD_INDEX": str(pod)}
        )
        for pod in range(spec["replicas"])
    ]
    named = Counter(str(Shard.parse(shard.split()[-1])) for shard in shards)
    assert named == dict.fromkeys(("1/4", "2/4", "3/4", "4/4"), 2)


def test_only_prometheus_reaches_figures_and_it_reaches_those_of_all_workers() -> None:
    workers = {spec["template"]["metadata"]["labels"]["app.kubernetes.io/component"]
               for path, spec in OF_PODS if path.name.startswith("worker")}  # fmt: skip
    chosen = {d["metadata"]["name"]: d["spec"].get("selector", d["spec"].get("podSelector")) for _, d in DOCUMENTS
              if d["kind"] in ("NetworkPolicy", "PodMonitor")}  # fmt: skip
    for name in ("metrics", "aii-worker"):
        assert workers <= set(chosen[name]["matchExpressions"][0]["values"])


def test_a_fallback_of_scaling_is_one_that_every_keda_takes() -> None:
    kinds = {t["metricType"] for _, d in DOCUMENTS if d["kind"] == "ScaledObject" and "fallback" in d["spec"]
             for t in d["spec"]["triggers"]}  # fmt: skip
    assert kinds == {"AverageValue"}


def commands() -> Iterator[tuple[str, list[str]]]:
    for path, pod in PODS:
        command = pod["containers"][0]["command"]
        if command[0] == "sh":
            command = shlex.split(re.sub(r"\$\(\(.*\)\)", "1", command[2].removeprefix("exec ")))
        yield str(path), command
    for unit in UNITS:
        (line,) = re.findall(r"^ExecStart=(.+)$", unit.read_text(), re.MULTILINE)
        yield unit.name, [Path(word).name if word.startswith("/opt/aii/") else word for word in shlex.split(line)]


@pytest.mark.parametrize(
    ("name", "command"), list(commands()), ids=lambda value: value if isinstance(value, str) else ""
)
def test_every_command_exists(name: str, command: list[str]) -> None:
    if command[0] == "aii":
        parse(aii, [word.replace("%i", "any") for word in command[1:]])
    else:
        assert command[:2] == ["python", "-m"]
        assert command[2] in ("workers", "deploy.flower")
        if command[2] == "workers":
            parse(aii, ["worker", *command[3:]])


def test_every_setting_that_is_given_exists() -> None:
    texts = [path.read_text() for path in (*FOLDER.rglob("*.yaml"), *EXAMPLE.rglob("*.env"), *UNITS)]
    given = {name for text in texts for name in re.findall(r"\bAII_[A-Z0-9_]+", text)}
    assert given - KNOWN == set()
    assert given


def test_scaling_asks_for_figures_that_flower_gives() -> None:
    given = (FOLDER.parents[1] / "tasks/monitoring/prometheus.py").read_text()
    triggers = [t for _, d in DOCUMENTS if d["kind"] == "ScaledObject" for t in d["spec"]["triggers"]]
    asked = {name for trigger in triggers for name in re.findall(r"aii_\w+", trigger["metadata"]["query"])}
    assert {name for name in asked if f'"{name}"' not in given} == set()
    assert len(triggers) == 4


def built(overlay: Path) -> list[dict[str, Any]]:
    """What `kubectl apply -k` would send."""
    kubectl = shutil.which("kubectl")
    kustomize = shutil.which("kustomize")
    if not (kubectl or kustomize):
        pytest.skip("neither kubectl nor kustomize is installed")
    command = [kubectl, "kustomize"] if kubectl else [str(kustomize), "build"]
    text = subprocess.run([*command, str(overlay)], capture_output=True, text=True, check=True).stdout
    objects = list(yaml.safe_load_all(text))
    for o in objects:
        if o["apiVersion"].partition("/")[0] not in ("keda.sh", "monitoring.coreos.com"):
            validate(o, VERSIONS[0])
    return objects


def test_shards_take_the_place_of_workers_for_queries(tmp_path: Path) -> None:
    there = os.path.relpath(FOLDER, tmp_path)
    parts = [f"{there}/components/{name}" for name in ("keda", "monitoring", "shared-cache", "shards")]
    overlay = {"kind": "Kustomization", "resources": [f"{there}/base"], "components": parts}
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(overlay))
    names = Counter((o["metadata"]["name"], o["kind"]) for o in built(tmp_path))
    assert {kind for name, kind in names if name == "worker-query"} == set()
    assert {kind for name, kind in names if name == "worker-shard"} == {"StatefulSet", "Service", "PodDisruptionBudget"}
    assert {kind for name, kind in names if name == "worker-activate"} == {
        "Deployment",
        "ScaledObject",
        "PodDisruptionBudget",
    }


def test_the_example_is_built_as_a_whole() -> None:
    objects = built(EXAMPLE)
    (namespace,) = [o["metadata"]["name"] for o in objects if o["kind"] == "Namespace"]
    assert {o["metadata"].get("namespace", namespace) for o in objects} == {namespace}
    deployments = {o["metadata"]["name"]: o["spec"] for o in objects if o["kind"] == "Deployment"}
    assert "replicas" not in deployments["worker-activate"]
    assert deployments["gateway"]["replicas"] == 2
    (container,) = deployments["worker-activate"]["template"]["spec"]["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert deployments["worker-activate"]["strategy"]["rollingUpdate"]["maxSurge"] == 0  # there may be no second GPU
    assert {m["mountPath"] for m in container["volumeMounts"]} == {"/var/lib/aii", "/var/lib/aii/cache", "/tmp"}


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_units_are_understood_by_systemd(unit: Path, tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if not analyze:
        pytest.skip("systemd is not installed")
    text = re.sub(r"/opt/aii/\S+", "/bin/true", unit.read_text())
    copy = tmp_path / unit.name.replace("@.", "@any.")
    copy.write_text(text)
    done = subprocess.run([analyze, "verify", str(copy)], capture_output=True, text=True, check=False)
    assert "Unknown" not in done.stderr
