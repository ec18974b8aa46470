"""Report cards: how well edited copies of an image are found, measured by a real worker."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path

import pytest
from PIL import Image

from producer import Producer
from tasks.errors import InvalidRequest, NotFound
from tasks.results import ActivationResult, CardResult
from tests.photographs import photographs
from tests.stack import WorkerProcess, aii
from tests.waiting import LIMIT_S
from workers.images.edits import EDITS


@pytest.fixture(autouse=True)
def worker(shared_worker: WorkerProcess, settings: object) -> WorkerProcess:
    return shared_worker


def test_a_card_counts_copies_by_edit_before_and_after_with_the_same_draws(producer: Producer) -> None:
    source = photographs()["chelsea.png"]
    protected = producer.activate(source, asset_id="chelsea").wait(LIMIT_S)
    assert isinstance(protected, ActivationResult)
    card = producer.card(source, "chelsea", copies=2, options={"nprobe": 1}).wait(LIMIT_S)
    assert [edit.edit for edit in card.edits] == list(EDITS)
    assert {edit.copies for edit in card.edits} == {2}
    identity = card.edits[0]
    assert (identity.found_before, identity.found_after, identity.matched_after) == (2, 2, 2)
    assert card.found_after.share >= card.found_before.share
    assert card.found_after.share == sum(edit.found_after for edit in card.edits) / (2 * len(EDITS))
    assert card.found_after.low < card.found_after.share <= card.found_after.high
    assert card.quality == protected.quality
    assert card.protected_sha256 == protected.protected_sha256
    picture = Image.open(io.BytesIO(base64.b64decode(card.difference)))
    assert max(picture.size) <= 448
    again = producer.card(source, "chelsea", copies=2, options={"nprobe": 1}).wait(LIMIT_S)
    assert again.edits == card.edits
    more = producer.card(source, "chelsea", copies=2, options={"nprobe": 64}).wait(LIMIT_S)
    assert more.found_before.share >= card.found_before.share


def test_a_card_of_another_image_or_of_no_asset_is_refused(producer: Producer) -> None:
    producer.activate(photographs()["chelsea.png"], asset_id="chelsea").wait(LIMIT_S)
    with pytest.raises(InvalidRequest, match="was activated from another image"):
        producer.card(photographs()["coffee.png"], "chelsea").wait(LIMIT_S)
    with pytest.raises(NotFound, match="has no activated asset 'nothing'"):
        producer.card(photographs()["coffee.png"], "nothing").wait(LIMIT_S)
    with pytest.raises(InvalidRequest, match="leave out views"):
        producer.card(photographs()["coffee.png"], "chelsea", options={"views": ["mirror"]})


def test_the_command_writes_a_page_beside_each_protected_file_and_adds_the_card_to_its_json(
    stack_environment: dict[str, str], tmp_path: Path
) -> None:
    photos, out = tmp_path / "photos", tmp_path / "out"
    photos.mkdir()
    for name in ("coffee", "a&<b>"):
        (photos / f"{name}.png").write_bytes(photographs()["coffee.png" if name == "coffee" else "chelsea.png"])
    command = ("activate", str(photos), "--out", str(out), "--card", "--json")
    told = aii(stack_environment, *command)
    assert told.returncode == 0, told.stderr
    records = [json.loads(line) for line in told.stdout.splitlines()]
    for record in records:
        assert record["card"]["status"] == "measured"
        assert "difference" not in record["card"]
        page = Path(f"{record['saved']}.card.html").read_text("utf-8")
        assert "<script" not in page
        assert not re.search(r'(?:src|href)="(?!data:)', page)
        assert page.count("data:image/") == 3
        share = CardResult.model_validate(record["card"] | {"difference": ""}).found_after.share
        assert f">{share:.0%}</span>" in page
        assert record["protected_sha256"] in page
    assert "a&amp;&lt;b&gt;" in Path(f"{records[0]['saved']}.card.html").read_text("utf-8")

    again = aii(stack_environment, *command)  # its own pages are replaced, another file is not
    assert again.returncode == 0, again.stderr
    Path(f"{records[0]['saved']}.card.html").write_text("mine")
    refused = aii(stack_environment, *command)  # before it asks for anything
    assert (refused.returncode, "exists already" in refused.stderr, refused.stdout) == (2, True, "")


def test_a_card_has_a_place_to_go_to(stack_environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(photographs()["coffee.png"])
    for wrong in ((), ("--json", "--no-wait")):
        assert aii(stack_environment, "activate", str(tmp_path / "a.png"), "--card", *wrong).returncode == 2
