"""What `aii index` says and how it ends, in this process: starting a program each time would take seconds."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tasks.command_line import EXIT_FAILED, EXIT_UNAVAILABLE
from tasks.errors import CollectionMissing
from tasks.settings import Settings
from tasks.storage import Bucket
from tests.collections import Place, trained_codec, unit_vectors
from workers.commands.index import index
from workers.index.collection.journal import named
from workers.index.collection.pinned import publish
from workers.index.maintenance.listing import which_registered
from workers.index.maintenance.upkeep import next_generation

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


def test_an_asset_is_removed_by_what_a_query_prints_if_that_is_one_asset(
    place: Place, run: Callable[..., Result]
) -> None:
    digests = ["ab" * 32, "ab" * 31 + "cd", "cd" * 32]
    for i, asset in enumerate([*digests, "urn:newsml:afp.com:1", "named"]):
        place.journal.add(asset, CODES[i], named({}, "Hafen.jpg" if asset == "named" else ""))
    place.compact()
    refused = run("remove", place.name, "ab" * 8 + "…")
    assert (refused.exit_code, "could be 2 assets" in refused.stderr) == (1, True)
    for word in ("cd" * 8 + "…", "ab" * 31 + "c", "urn:newsml:afp...", "Hafen.jpg"):
        assert run("remove", place.name, word).stdout == f"1 assets removed from {place.name}.\n"
    assert which_registered(place.files, place.journal, [*digests, "named", "urn:newsml:afp.com:1"]) == {digests[0]}
    assert run("remove", place.name, "named").stderr == "not there  named\n"  # not another one that begins so


def test_assets_are_listed_with_their_names_and_metadata(place: Place, run: Callable[..., Result]) -> None:
    place.journal.add("new", CODES[0], named({"kind": "photo"}, "Hafen.jpg"))
    place.journal.remove("old-499")
    assert run("list", place.name, "--prefix", "new").stdout == "new\tHafen.jpg\tkind=photo\n"
    lines = run("list", place.name, "--json").stdout.splitlines()
    assert len(lines) == 500
    assert json.loads(lines[-1]) == {"asset_id": "new", "name": "Hafen.jpg", "meta": {"kind": "photo"}}
    assert len(run("list", place.name, "--limit", "7").stdout.splitlines()) == 7


def test_a_reader_of_a_list_may_have_enough(place: Place, stack_environment: dict[str, str]) -> None:
    code = "from producer.cli import aii; aii(prog_name='aii')"
    command = f'"{sys.executable}" -c "{code}" index list {place.name} | head -1; exit ${{PIPESTATUS[0]}}'
    done = subprocess.run(["bash", "-c", command], env=stack_environment, capture_output=True, text=True, check=False)
    assert (done.returncode, len(done.stdout.splitlines()), done.stderr) == (0, 1, "")


def test_collections_are_listed_with_what_is_in_them(place: Place, run: Callable[..., Result]) -> None:
    listed = [json.loads(line) for line in run("list", "--json").stdout.splitlines()]
    (own,) = (one for one in listed if one["collection"] == place.name)
    assert (own["generation"], own["images"]) == (1, 500)
    assert f"{place.name}\t1\t" in run("list").stdout
    assert run("delete", place.name, "--yes").exit_code == 0
    assert place.name not in run("list").stdout


def test_a_collection_that_cannot_be_read_keeps_no_other_from_being_listed(
    place: Place, settings: Settings, tmp_path: Path, run: Callable[..., Result]
) -> None:
    damaged = Place.published(settings, tmp_path / "damaged")
    (key,) = damaged.store.list_keys(Bucket.COLLECTIONS, f"{damaged.name}/generations/")
    damaged.store.put(Bucket.COLLECTIONS, key, b"{}", "application/json")
    listed = run("list")
    damaged.files.delete_all()
    assert (listed.exit_code, f"{place.name}\t1\t" in listed.stdout) == (EXIT_FAILED, True)
    (line,) = (line for line in listed.stderr.splitlines() if line.startswith(f"{damaged.name}: The manifest"))
    assert line.endswith("[corrupt_segment]")


def test_a_collection_is_deleted_when_the_question_is_answered(place: Place, run: Callable[..., Result]) -> None:
    assert run("delete", place.name).exit_code == 1  # the prompt gets no answer
    assert place.files.current().generation == 1
    assert run("delete", place.name, "--yes").exit_code == 0
    with pytest.raises(CollectionMissing):
        place.files.current()


def test_verification_says_what_it_read_and_found(place: Place, run: Callable[..., Result]) -> None:
    good = run("verify", place.name, "--sample", "50")
    assert (good.exit_code, "5 files agree with their digests: 500 images" in good.stdout) == (0, True)


def test_verification_says_when_there_was_no_image_to_search(
    settings: Settings, tmp_path: Path, run: Callable[..., Result]
) -> None:
    empty = Place.published(settings, tmp_path / "empty", count=0)
    seen = run("verify", empty.name)
    assert (seen.exit_code, f"none was searched; first: aii index compact {empty.name}" in seen.stdout) == (0, True)


def test_a_repair_says_what_it_did(place: Place, run: Callable[..., Result]) -> None:
    place.activated("new", CODES[0])
    place.redis.flushall()
    done = run("repair", place.name)
    assert "1 result documents; 0 of them" in done.stdout
    assert "1 assets have a result document; 1 were registered again, 0 removed again." in done.stdout


def test_a_repair_of_all_stops_at_a_file_that_cannot_be_opened_and_changes_nothing(
    place: Place, run: Callable[..., Result]
) -> None:
    place.activated("new", CODES[0])
    (part,) = (part for part in place.compact().segments if part.count == 1)
    place.store.delete(Bucket.COLLECTIONS, f"{place.name}/objects/{part.index}")
    for all_of_them in ((), ("--all",)):
        stopped = run("repair", place.name, *all_of_them)
        assert (stopped.exit_code, part.index in stopped.stderr) == (EXIT_FAILED, True)
    assert part in place.files.current().segments
    assert run("rollback", place.name, "--to", "1").exit_code == 0
    assert run("repair", place.name, "--all").exit_code == 0
    assert which_registered(place.files, place.journal, ["new"]) == {"new"}


def test_looking_at_a_collection_creates_no_bucket(run: Callable[..., Result]) -> None:
    for _ in range(2):
        refused = run("info", "starter", AII_BUCKET_COLLECTIONS=f"mistyped-{uuid.uuid4().hex[:12]}")
        assert (refused.exit_code, "lacks a bucket" in refused.stderr) == (EXIT_UNAVAILABLE, True)


def test_that_a_collection_has_outgrown_its_cells_is_said(place: Place, run: Callable[..., Result]) -> None:
    assert "retrain" not in run("info", place.name).stdout
    manifest = place.files.current()
    (part,) = manifest.segments
    segments = [part.model_copy(update={"count": 1_000_000})]
    grown = next_generation(place.files, manifest, segments=segments, journal_entry=manifest.journal_entry)
    publish(place.files, place.journal, grown)
    assert f"advised (aii index retrain {place.name}): 1,000,000 images are 62,500" in run("info", place.name).stdout


@pytest.mark.parametrize("damage", ["pointer", "manifest"])
def test_a_damaged_current_generation_is_told_in_a_line_and_a_rollback_gets_out_of_it(
    place: Place, run: Callable[..., Result], damage: str
) -> None:
    place.journal.add("new", CODES[0], {})
    place.compact()
    place.journal.add("later", CODES[1], {})
    (newest,) = (k for k in place.store.list_keys(Bucket.COLLECTIONS, f"{place.name}/generations/") if "00002-" in k)
    key = f"{place.name}/current.json" if damage == "pointer" else newest
    place.store.put(Bucket.COLLECTIONS, key, b'{"generation": "two"}', "application/json")
    for command in ("list", "info", "verify", "compact"):
        told = run(command, place.name)
        assert told.exit_code == EXIT_FAILED
        (line,) = told.stderr.splitlines()
        assert "damaged" in line
        assert f"`aii index rollback {place.name}`" in line
        assert line.endswith("[corrupt_segment]")
    done = run("rollback", place.name)
    kept = 2 if damage == "pointer" else 1
    assert done.stdout.endswith(f"is current, with the files of generation {kept}.\n"), done.stderr
    place.files.current()
    assert which_registered(place.files, place.journal, ["new", "later"]) == {"new", "later"}
    assert run("info", place.name).exit_code == 0
    assert run("verify", place.name).exit_code == (0 if damage == "pointer" else EXIT_FAILED)  # which is still kept


def test_a_damaged_pointer_beside_an_emptied_redis_is_mended_by_a_rollback_and_a_repair(
    place: Place, run: Callable[..., Result]
) -> None:
    place.compact()
    place.activated("new", CODES[0])
    place.redis.flushall()
    place.store.put(Bucket.COLLECTIONS, f"{place.name}/current.json", b"", "application/json")
    assert run("rollback", place.name).exit_code == 0
    assert "1 were registered again" in run("repair", place.name).stdout
    assert which_registered(place.files, place.journal, ["new"]) == {"new"}


def test_a_generation_that_redis_did_not_note_is_not_gone_on_from(place: Place, run: Callable[..., Result]) -> None:
    forged = place.files.current().model_copy(update={"generation": 2, "threshold": 1e9})
    place.files.publish(forged)
    place.store.put(Bucket.COLLECTIONS, f"{place.name}/current.json", b"none", "application/json")
    assert "with the files of generation 1." in run("rollback", place.name).stdout
    assert place.files.current().threshold == 0.5


def test_a_damaged_collection_is_not_imported_over_but_can_be_deleted_and_imported(
    place: Place, run: Callable[..., Result], tmp_path: Path
) -> None:
    file = str(tmp_path / "export.tar")
    assert run("export", place.name, file).exit_code == 0
    for key in [
        *place.store.list_keys(Bucket.COLLECTIONS, f"{place.name}/generations/"), f"{place.name}/current.json"
    ]:  # fmt: skip
        place.store.put(Bucket.COLLECTIONS, key, b"{}", "application/json")
    refused = run("import", file)
    assert (refused.exit_code, "[collection_exists]" in refused.stderr) == (EXIT_FAILED, True)
    assert f"`aii index delete {place.name}`" in run("rollback", place.name).stderr
    assert run("delete", place.name, "--yes").exit_code == 0
    assert run("import", file).exit_code == 0
    assert run("verify", place.name).exit_code == 0
