"""The ledger's transitions, on a real Redis."""

from __future__ import annotations

import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest
from redis.exceptions import ResponseError

from tasks.connection import connect_redis
from tasks.errors import InvalidRequest, JobMissing, RedisUnavailable
from tasks.ledger.keys import job_key
from tasks.ledger.ledger import Ledger
from tasks.ledger.operations import Operations
from tasks.ledger.outdated import mark_outdated
from tasks.ledger.states import Claim, JobState
from tasks.ledger.waiting import wait_until_closed
from tasks.messages import ActivateRequest, Source
from tasks.settings import Settings
from tasks.storage import ObjectStore
from tests.waiting import wait_for

QUEUE = "activate"


def request(name: str = "a") -> ActivateRequest:
    return ActivateRequest(collection="starter", source=Source(sha256="0" * 64, size=1), asset_id=name)


def submitted(ledger: Ledger, name: str = "a") -> str:
    job = request(name)
    assert ledger.submit([job]) == [True]
    return job.job_id


def claim(ledger: Ledger, job_id: str, token: str = "t") -> Claim:
    return ledger.claim(job_id, QUEUE, token, "worker")


def brief(settings: Settings, **changes: float) -> Ledger:
    """A ledger whose leases run out at once, or with other terms."""
    terms = {"lease_s": 0.01, "max_attempts": 2, "keep_closed_s": 60} | changes
    return Ledger(connect_redis(settings), **terms)  # type: ignore[arg-type]


def test_submitting_the_same_request_twice_is_one_job(ledger: Ledger) -> None:
    submitted(ledger)
    assert ledger.submit([request()]) == [False]
    assert ledger.recovery.queue_states([QUEUE])[QUEUE].seq == 1


def test_a_request_twice_in_one_call_is_one_job(ledger: Ledger) -> None:
    assert ledger.submit([request(), request()]) == [True, False]


def test_jobs_that_threads_submit_at_once_are_new_once_and_have_a_place_each(ledger: Ledger) -> None:
    wanted = [request(str(number % 10)) for number in range(40)]
    with ThreadPoolExecutor(8) as pool:
        new = list(pool.map(lambda one: ledger.submit([one])[0], wanted))
    assert new.count(True) == 10
    places = [place for _, place in ledger.states_and_places([one.job_id for one in wanted[:10]])]
    assert sorted(places) == list(range(1, 11))


def test_one_odd_record_costs_none_of_the_jobs_submitted_with_it(ledger: Ledger, settings: Settings) -> None:
    wanted = [request(str(number)) for number in range(8)]
    with connect_redis(settings) as client:
        client.set(job_key(wanted[3].job_id), "no hash")

    def new(one: ActivateRequest) -> bool:
        try:
            return ledger.submit([one])[0]
        except ResponseError:
            return False

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(new, wanted)) == [True] * 3 + [False] + [True] * 4


def test_a_claimed_job_cannot_be_claimed_again(ledger: Ledger) -> None:
    job_id = submitted(ledger)
    assert claim(ledger, job_id, "one") is Claim.CLAIMED
    assert claim(ledger, job_id, "two") is Claim.LEASED
    assert ledger.get(job_id).attempts == 1


def test_a_closed_job_stays_closed(ledger: Ledger) -> None:
    job_id = submitted(ledger)
    claim(ledger, job_id)
    assert ledger.close(job_id, "t", JobState.DONE)
    assert claim(ledger, job_id, "late") is Claim.CLOSED
    assert ledger.submit([request()]) == [False]


def test_a_failed_job_is_opened_again_by_submitting_it(ledger: Ledger) -> None:
    job_id = submitted(ledger)
    claim(ledger, job_id)
    ledger.close(job_id, "t", JobState.FAILED, "truncated", "half a file")
    assert ledger.get(job_id).error_code == "truncated"
    assert ledger.submit([request()]) == [True]
    assert ledger.get(job_id).error_code is None


def test_a_committed_job_whose_asset_was_activated_since_is_opened_again_before_its_worker_closes_it(
    ledger: Ledger, settings: Settings
) -> None:
    job_id = submitted(ledger)
    claim(ledger, job_id)
    assert ledger.commit(job_id, "t", ("{}", ""), None, None, 0) is not None
    assert ledger.submit([request()]) == [False]
    with connect_redis(settings) as client:
        mark_outdated(client, {job_id: "other"}, {})
    assert ledger.submit([request()]) == [True]
    assert not ledger.close(job_id, "t", JobState.DONE)
    assert claim(ledger, job_id, "another") is Claim.CLAIMED
    again = ledger.commit(job_id, "another", ("{}", ""), None, None, 0)
    assert again is not None
    assert again.number == 2


def test_a_job_that_killed_its_workers_is_opened_again_only_on_purpose(ledger: Ledger, settings: Settings) -> None:
    job_id = submitted(ledger)
    claim(ledger, job_id)
    ledger.close(job_id, "t", JobState.FAILED, "poison", "dead")
    assert ledger.submit([request()]) == [False]
    assert Operations.connect(settings).retry(job_id).job_id == job_id
    assert ledger.get(job_id).state is JobState.QUEUED


def test_a_job_is_found_by_the_first_digits_of_its_id(ledger: Ledger, settings: Settings) -> None:
    operations, jobs = Operations.connect(settings), [submitted(ledger, name) for name in "abcdefghi"]
    assert operations.find(jobs[0][:8]) == jobs[0]
    assert operations.find("0" * 32) == "0" * 32
    with pytest.raises(JobMissing):
        operations.find("0000000")
    with pytest.raises(InvalidRequest):
        operations.find("xyz")


def test_the_ledger_keeps_the_asset_and_the_files_name(ledger: Ledger) -> None:
    job = request("photo").model_copy(update={"name": "IMG 1.jpg"})
    ledger.submit([job])
    claim(ledger, job.job_id)
    ledger.close(job.job_id, "t", JobState.DONE)
    assert (ledger.get(job.job_id).asset_id, ledger.get(job.job_id).name) == ("photo", "IMG 1.jpg")


def test_only_the_holder_of_the_lease_can_close_a_job(ledger: Ledger) -> None:
    job_id = submitted(ledger)
    claim(ledger, job_id, "mine")
    assert not ledger.close(job_id, "theirs", JobState.DONE)
    assert ledger.get(job_id).state is JobState.RUNNING


def test_a_job_the_ledger_does_not_know_cannot_be_claimed(ledger: Ledger) -> None:
    unknown = uuid.uuid4().hex
    assert claim(ledger, unknown) is Claim.MISSING
    with pytest.raises(JobMissing):
        ledger.get(unknown)


def test_an_adopted_job_can_be_claimed(ledger: Ledger) -> None:
    job_id = uuid.uuid4().hex
    ledger.adopt(job_id, "aii.activate", QUEUE, {"anything": [1]})
    assert claim(ledger, job_id) is Claim.CLAIMED


def test_a_lease_that_ran_out_is_found_and_its_job_queued_again_once(settings: Settings) -> None:
    ledger = brief(settings)
    job_id = submitted(ledger)
    claim(ledger, job_id)
    wait_for(lambda: ledger.recovery.expired() == [job_id], "the lease did not run out")
    message = ledger.recovery.requeue(job_id)
    assert message is not None
    assert (message.job_id, message.task, message.queue) == (job_id, "aii.activate", QUEUE)
    assert ledger.recovery.requeue(job_id) is None
    assert ledger.get(job_id).state is JobState.QUEUED
    ledger.disconnect()


def test_a_renewed_lease_does_not_run_out(ledger: Ledger) -> None:
    job_id = submitted(ledger)
    claim(ledger, job_id)
    assert ledger.renew({job_id: "t"}) == []
    assert ledger.recovery.expired() == []


def test_renewing_tells_which_leases_were_lost(ledger: Ledger) -> None:
    kept, lost = submitted(ledger, "kept"), submitted(ledger, "lost")
    claim(ledger, kept), claim(ledger, lost)
    assert ledger.renew({kept: "t", lost: "another token"}) == [lost]


def test_a_worker_whose_lease_was_given_away_cannot_close(settings: Settings) -> None:
    ledger = brief(settings)
    job_id = submitted(ledger)
    claim(ledger, job_id, "slow")
    wait_for(ledger.recovery.expired, "the lease did not run out")
    ledger.recovery.requeue(job_id)
    claim(ledger, job_id, "second")
    assert not ledger.close(job_id, "slow", JobState.DONE)
    assert ledger.close(job_id, "second", JobState.DONE)
    ledger.disconnect()


def test_a_job_of_which_workers_died_while_it_ran_alone_is_exhausted(settings: Settings) -> None:
    ledger = brief(settings, max_attempts=4)
    job_id = submitted(ledger)
    for expected in (Claim.CLAIMED, Claim.SUSPECT, Claim.SUSPECT, Claim.EXHAUSTED):
        assert claim(ledger, job_id) is expected
        if expected is Claim.SUSPECT:
            assert ledger.run_alone(job_id, "t")
        wait_for(ledger.recovery.expired, "the lease did not run out")
        ledger.recovery.requeue(job_id)
    ledger.disconnect()


def test_a_job_is_not_blamed_for_a_lease_that_a_living_worker_lost(settings: Settings) -> None:
    ledger = brief(settings, max_attempts=3)
    job_id = submitted(ledger)
    claim(ledger, job_id)
    for turn in range(4):
        wait_for(ledger.recovery.expired, "the lease did not run out")
        ledger.recovery.requeue(job_id)
        if turn:
            assert ledger.survived(job_id, "t")
            assert not ledger.survived(job_id, "t")
        assert claim(ledger, job_id) is Claim.SUSPECT
        assert ledger.run_alone(job_id, "t")
    ledger.disconnect()


def test_a_job_that_workers_died_beside_is_never_exhausted(settings: Settings) -> None:
    ledger = brief(settings, max_attempts=1)
    job_id = submitted(ledger)
    assert claim(ledger, job_id) is Claim.CLAIMED
    for _ in range(6):
        wait_for(ledger.recovery.expired, "the lease did not run out")
        assert claim(ledger, job_id) is Claim.SUSPECT
    ledger.disconnect()


def test_a_job_that_its_worker_gave_back_is_no_suspect(ledger: Ledger) -> None:
    job_id = submitted(ledger)
    claim(ledger, job_id)
    assert ledger.recovery.requeue(job_id, "t")
    assert claim(ledger, job_id) is Claim.CLAIMED


def test_a_job_that_is_put_off_waits_twice_as_long_each_time_and_then_is_sent_again(ledger: Ledger) -> None:
    job_id = submitted(ledger)
    pauses = []
    for _ in range(2):
        claim(ledger, job_id)
        pauses.append(ledger.postpone(job_id, QUEUE, "t", None))
        assert (ledger.get(job_id).state, ledger.recovery.waiting_up_to(QUEUE, 99)) == (JobState.QUEUED, [])
    assert 0.5 <= pauses[0] <= 1.5
    assert 1 <= pauses[1] <= 3
    wait_for(lambda: ledger.recovery.queue_states([QUEUE])[QUEUE].due, "the pause does not end")
    message = ledger.recovery.release(job_id, QUEUE)
    assert message
    assert message.job_id == job_id
    assert ledger.recovery.release(job_id, QUEUE) is None
    assert [job for job, _ in ledger.recovery.waiting_up_to(QUEUE, 99)] == [job_id]


def test_the_tries_of_a_job_that_is_refused_are_counted_and_only_its_holder_can_put_it_off(ledger: Ledger) -> None:
    job_id = submitted(ledger)
    claim(ledger, job_id)
    assert ledger.postpone(job_id, QUEUE, "another", 2) is None
    assert (ledger.postpone(job_id, QUEUE, "t", 2) or 0) > 0
    claim(ledger, job_id)
    assert (ledger.postpone(job_id, QUEUE, "t", 2) or 0) < 0
    assert ledger.get(job_id).state is JobState.RUNNING


def test_a_job_that_was_cancelled_while_it_was_put_off_is_not_sent_again(
    ledger: Ledger, settings: Settings, store: ObjectStore
) -> None:
    job_id = submitted(ledger)
    claim(ledger, job_id)
    ledger.postpone(job_id, QUEUE, "t", None)
    operations = Operations.connect(settings)
    assert operations.waiting(QUEUE)[0] == 1
    assert [record.job_id for record in operations.jobs(JobState.QUEUED, 5)] == [job_id]
    operations.cancel(job_id, store)
    assert ledger.recovery.release(job_id, QUEUE) is None


def test_a_job_sent_again_gets_a_new_place_at_the_tail(ledger: Ledger) -> None:
    first = submitted(ledger, "first")
    submitted(ledger, "second")
    assert ledger.recovery.resend(first, QUEUE, 1) is not None
    assert [place for _, place in ledger.recovery.waiting_up_to(QUEUE, 10)] == [2, 3]
    assert ledger.recovery.resend(first, QUEUE, 1) is None


def test_the_head_is_the_furthest_place_that_was_started(ledger: Ledger) -> None:
    jobs = [submitted(ledger, name) for name in "abc"]
    claim(ledger, jobs[1])
    assert ledger.recovery.queue_states([QUEUE])[QUEUE].head == 2


def test_waiting_ends_with_the_jobs(ledger: Ledger) -> None:
    done, open_, unknown = submitted(ledger, "done"), submitted(ledger, "open"), uuid.uuid4().hex
    claim(ledger, done)
    ledger.close(done, "t", JobState.DONE)
    assert list(wait_until_closed(ledger, [done, open_, unknown], timeout_s=0)) == [
        (done, JobState.DONE),
        (unknown, None),
    ]


def test_what_s3_answers_for_is_forgotten_sooner(settings: Settings) -> None:
    ledger = brief(settings, keep_closed_s=6_000, keep_done_s=60)
    left = {}
    for name, state, found_in_s3 in (
        ("done", JobState.DONE, True),
        ("failed", JobState.FAILED, True),
        ("extracted", JobState.DONE, False),
    ):
        job_id = submitted(ledger, name)
        claim(ledger, job_id)
        assert ledger.close(job_id, "t", state, found_in_s3=found_in_s3)
        with connect_redis(settings) as client:
            left[name] = client.ttl(job_key(job_id)) > 60
    assert left == {"done": False, "failed": True, "extracted": True}


def test_an_unreachable_redis_is_named(settings: Settings) -> None:
    unreachable = settings.model_copy(update={"redis_url": type(settings.redis_url)("redis://:secret@127.0.0.1:1/0")})
    with pytest.raises(RedisUnavailable, match=r"127\.0\.0\.1:1 does not answer.*aii up") as caught:
        Ledger.connect(unreachable).check()
    assert "secret" not in str(caught.value)
