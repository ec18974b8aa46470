"""Tests of containers run where an engine works; elsewhere they are skipped, and say what to install."""

from __future__ import annotations

import os

import pytest

from tests.containers.engine import Engine, Unusable, find_engine
from tests.containers.images import Images


@pytest.fixture(scope="session", autouse=True)
def engine() -> Engine:
    try:
        return find_engine()
    except Unusable as error:
        if os.environ.get("AII_TEST_ENGINE", "") not in ("", "none"):
            raise  # what was asked for is not skipped
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def images(engine: Engine) -> Images:
    return Images(engine)
