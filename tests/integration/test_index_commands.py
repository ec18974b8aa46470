"""What `aii index` says and how it ends, in this process: starting a program each time would take seconds."""

from __future__ import annotations

import uuid
from collections.abc import Callable

import pytest
from click.testing import CliRunner, Result

from tasks.command_line import EXIT_UNAVAILABLE
from tasks.errors import CollectionMissing
from tests.collections import Place, trained_codec, unit_vectors
from workers.commands.index import index

CODES = trained_codec().encode(unit_vectors(10, 1))


@pytest.fixture
def run(stack_environment: dict[str, str]) -> Callable[..., Result]:
    def invoke(*arguments: str, **environment: str) -> Result:
        return CliRunner().invoke(index, arguments, env=stack_environment | environment)

    return invoke


def test_what_is_removed_and_what_was_not_there_is_said(place: Place, run: Callable[..., Result]) -> None:
    place.journal.add("new", CODES[0], {})
    place.journal.remove("old-2")
    done = run("remove", place.name, "old-1", "new", "old-2", "never-heard-of")
    assert (done.exit_code, done.stdout) == (1, f"2 assets removed from {place.name}.\n")
    assert done.stderr.splitlines() == ["not there  never-heard-of", "not there  old-2"]
    assert run("remove", place.name, "old-3").exit_code == 0


def test_a_collection_is_deleted_when_the_question_is_answered(place: Place, run: Callable[..., Result]) -> None:
    assert run("delete", place.name).exit_code == 1  # nobody answers
    assert place.files.current().generation == 1
    assert run("delete", place.name, "--yes").exit_code == 0
    with pytest.raises(CollectionMissing):
        place.files.current()


def test_verification_says_what_it_read_and_found(place: Place, run: Callable[..., Result]) -> None:
    good = run("verify", place.name, "--sample", "50")
    assert (good.exit_code, "4 files agree with their digests: 500 images" in good.stdout) == (0, True)


def test_a_repair_says_what_it_did(place: Place, run: Callable[..., Result]) -> None:
    place.activated("new", CODES[0])
    place.redis.flushall()
    done = run("repair", place.name)
    assert "1 assets have a result document; 1 were registered again, 0 removed again." in done.stdout


def test_looking_at_a_collection_creates_no_bucket(run: Callable[..., Result]) -> None:
    for _ in range(2):
        refused = run("info", "starter", AII_BUCKET_COLLECTIONS=f"mistyped-{uuid.uuid4().hex[:12]}")
        assert (refused.exit_code, "lacks a bucket" in refused.stderr) == (EXIT_UNAVAILABLE, True)
