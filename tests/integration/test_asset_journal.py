"""What a commit is made with without having asked the journal: it is refused wherever that was wrong."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tasks.assets.journal import AssetJournal
from tasks.connection import RedisClient, connect_redis
from tasks.errors import AssetConflict
from tasks.ledger.commits import Commit, JobFacts, Registration, Seen
from tasks.ledger.keys import JournalKeys
from tasks.ledger.ledger import Ledger
from tasks.ledger.states import Claim
from tasks.messages import ActivateRequest, Source
from tasks.names import QUEUE_ACTIVATE
from tasks.settings import Settings
from workers.index.collection.journal import Journal

COLLECTION = "starter"


@pytest.fixture
def client(settings: Settings) -> Iterator[RedisClient]:
    with connect_redis(settings) as client:
        yield client


@pytest.fixture
def journal(client: RedisClient) -> AssetJournal:
    """One that has read the announcements."""
    journal = AssetJournal(client, COLLECTION)
    journal.live("another")
    return journal


def committed(ledger: Ledger, source: str, seen: Seen) -> Commit | None:
    """The commit of a job of its own that activates the asset `one` from a source."""
    request = ActivateRequest(source=Source(sha256=source * 64), asset_id="one", collection=COLLECTION)
    ledger.submit([request])
    assert ledger.claim(request.job_id, QUEUE_ACTIVATE, "t", "worker") is Claim.CLAIMED
    facts = JobFacts(request.job_id, source * 64, f"protected/{source}.png", source * 64, "0" * 64)
    registration = Registration(COLLECTION, "one", "AAAA", "{}", facts)
    return ledger.commit(request.job_id, "t", ('{"entry":"', '"}'), registration, seen, 0)


def assumed(journal: AssetJournal) -> Seen:
    live = journal.assumed("one")
    return Seen(live.announcements, live.state, live.purges)


def test_what_is_assumed_is_not_asked_for(client: RedisClient, journal: AssetJournal) -> None:
    client.hset(JournalKeys.of(COLLECTION).state, "announcements", 7)
    assert journal.assumed("one").announcements == "0"
    assert journal.live("one").announcements == "7"
    assert journal.assumed("one").announcements == "7"


def test_an_asset_of_another_source_is_a_conflict(ledger: Ledger, journal: AssetJournal) -> None:
    assert committed(ledger, "a", assumed(journal)) is not None
    with pytest.raises(AssetConflict):
        committed(ledger, "b", assumed(journal))


def test_a_change_that_left_the_journal_is_looked_up_again(
    ledger: Ledger, client: RedisClient, journal: AssetJournal
) -> None:
    before, collection = assumed(journal), Journal(client, COLLECTION)
    commit = committed(ledger, "a", before)
    assert commit is not None
    entry = commit.document.decode().split('"')[3]
    journal.recorded("one", entry)
    collection.announce(2, "0-0", covered="0-0")
    announced = collection.live("one")
    assert announced.state is not None
    collection.announce(3, "0-0", covered=entry)
    assert committed(ledger, "b", before) is None
    # Once for the announcement, once for the change that left after it.
    assert int(collection.live("one").announcements) == int(announced.announcements) + 2


def test_an_asset_that_was_purged_is_stored_again(ledger: Ledger, client: RedisClient, journal: AssetJournal) -> None:
    before, collection = assumed(journal), Journal(client, COLLECTION)
    collection.begin_purge("one", [])
    assert committed(ledger, "a", before) is None
    collection.end_purge("one")
    assert committed(ledger, "b", before) is None
