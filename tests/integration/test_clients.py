"""Producers in other languages, against the real stack: each is one file without any library."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import uuid
from pathlib import Path

import pytest

from producer import ActivationResult, Producer
from tasks.settings import Settings
from tests.photographs import crops
from tests.stack import WorkerProcess
from tests.waiting import LIMIT_S

CLIENTS = Path("deploy/clients")
LANGUAGES = {"activate.mjs": "node", "Activate.java": "java"}


def test_each_client_is_run_here_and_has_at_most_thirty_lines_of_code() -> None:
    assert {path.name for path in CLIENTS.iterdir() if path.suffix != ".md"} == set(LANGUAGES)
    for name in LANGUAGES:
        lines = (CLIENTS / name).read_text().splitlines()
        assert len([line for line in lines if line.strip() and not line.startswith("//")]) <= 30, name


@pytest.mark.parametrize(("client", "language"), LANGUAGES.items())
def test_an_image_is_protected_from_another_language_and_is_the_same_job_as_from_python(
    client: str, language: str, shared_worker: WorkerProcess, producer: Producer, settings: Settings, tmp_path: Path
) -> None:
    program = shutil.which(language)
    if program is None:
        pytest.skip(f"{language} is not installed on this machine")
    photo, asset_id = tmp_path / "photo.jpg", f"from {language}/{uuid.uuid4().hex}"
    photo.write_bytes(crops(1, 96)[0] + language.encode())
    environment = os.environ | {
        "AII_REDIS_URL": settings.redis_url.get_secret_value(),
        "AII_S3_ENDPOINT": settings.s3_endpoint,
        "AII_S3_ACCESS_KEY": settings.s3_access_key.get_secret_value(),
        "AII_S3_SECRET_KEY": settings.s3_secret_key.get_secret_value(),
    }
    command = [program, str(CLIENTS / client), str(photo), asset_id]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert run.returncode == 0, run.stderr
    document = json.loads(run.stdout)
    assert document["status"] in ("activated", "passive")
    job = producer.activate(photo, asset_id=asset_id)
    assert (job.job_id, job.new) == (document["job_id"], False)
    result = job.wait(LIMIT_S)
    assert isinstance(result, ActivationResult)
    assert result.asset_id == asset_id
