"""The page with several workers, and what an operator does there: the slow worker is named, jobs are cancelled and sent
again, dead letters are sent again and dropped.

With ``AII_TEST_SCREENSHOTS=DIR``, what it looked like is left there.
"""

from __future__ import annotations

import os
import statistics
import sys
import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pytest

from producer import ActivationJob, Producer
from tasks.connection import connect_redis
from tasks.ledger.dead_letters import DeadLetters
from tasks.ledger.states import JobState
from tasks.results import ActivationResult
from tasks.settings import Settings
from tests.browser import Browser
from tests.flower import Flower
from tests.odd_decoder import crashing, install
from tests.photographs import crops
from tests.stack import WorkerProcess
from tests.waiting import LIMIT_S, wait_for

_STATE = "document.querySelector('h1 span').textContent"


def keep_busy() -> None:
    """Threads of this process that never rest: whatever it computes waits for Python again and again."""

    def spin() -> None:
        while True:
            pass

    sys.setswitchinterval(0.001)
    for _ in range(2):
        threading.Thread(target=spin, daemon=True).start()


def opened(browser: Browser, flower: Flower, path: str = "/activations") -> None:
    browser.resize(1280, 1000)
    browser.open(flower.url + path, Authorization=flower.authorization)


def kept(browser: Browser, name: str) -> None:
    """Keep a picture where that is wished."""
    if folder := os.environ.get("AII_TEST_SCREENSHOTS"):
        browser.screenshot(Path(folder, f"{name}.png"), whole=True)


def speeds(browser: Browser) -> dict[str, list[str]]:
    """The rows of the table of workers, by the worker's name: the texts of their cells."""
    rows = "[...document.querySelectorAll('#aii-speeds tbody tr:not(.whole)')].filter(r => r.querySelector('a'))"
    found = browser.script(f"{rows}.map(r => [r.querySelector('a').textContent, [...r.cells].map(c => c.textContent)])")
    return dict(found)


def is_mean_of_the_last(shown: str, times: Sequence[float]) -> bool:
    """Whether a figure is the mean of the last of some times, within two percent and its last
    digit: the page shows the last minute."""
    means = (statistics.mean(times[-count:]) for count in range(1, len(times) + 1))
    return any(float(shown.replace(",", "")) == pytest.approx(mean, rel=0.02, abs=0.051) for mean in means)


def test_of_two_workers_the_slow_one_is_named_and_each_ones_figures_are_those_of_its_documents(
    flower: Flower, browser: Browser, start_worker: Callable[..., WorkerProcess], producer: Producer
) -> None:
    slow, fast = start_worker(prepare=keep_busy), start_worker()
    opened(browser, flower)
    times: dict[str, list[float]] = defaultdict(list)
    jobs: list[ActivationJob] = []
    photos = iter(crops(400, side=96))

    def told_apart() -> bool:
        """Both go on until the page has seen enough of each."""
        jobs.extend(producer.activate(next(photos)) for _ in range(6))
        results = [job.wait(LIMIT_S) for job in jobs[-6:]]
        for result in sorted(results, key=lambda result: result.provenance.finished_at):
            assert isinstance(result, ActivationResult)
            times[result.provenance.worker].append(result.provenance.timings_ms["optimise"])
        return any("slow" in cells[0] for cells in speeds(browser).values())

    wait_for(told_apart, "no worker is said to be slow")
    shown = speeds(browser)
    (slow_name,) = (name for name in shown if name.endswith(f"-{slow.pid}"))
    (fast_name,) = (name for name in shown if name.endswith(f"-{fast.pid}"))

    def agree() -> bool:
        rows = speeds(browser)
        return all(
            rows[name][4] != "–" and is_mean_of_the_last(rows[name][4], times[name]) for name in (slow_name, fast_name)
        )

    wait_for(agree, "the page and the documents disagree")
    kept(browser, "two-workers")
    shown = speeds(browser)
    assert "slow" in shown[slow_name][0]
    assert "slow" not in shown[fast_name][0]

    # One worker's, or one collection's, part of the course.
    for named in (f"worker {slow_name}", "collection starter"):
        option = f"[...document.querySelectorAll('#aii-part option')].find(o => o.textContent === {named!r})"
        wait_for(lambda: browser.script(f"!!{option}"), f"{named} is not offered")  # noqa: B023
        browser.script(
            f"{option}.selected = true; document.querySelector('#aii-part').dispatchEvent(new Event('change'))"
        )
        assert browser.text(".trends h3") == f"Done, {named}"
        drawn = "document.querySelector('.trends svg').getAttribute('aria-label')"
        wait_for(lambda: "at most 0 " not in browser.script(drawn), f"nothing of {named} is drawn")  # noqa: B023
    kept(browser, "part-of-the-course")

    # The name leads to the jobs of this worker.
    browser.script(
        f"[...document.querySelectorAll('#aii-speeds a')].find(a => a.textContent === {slow_name!r}).click()"
    )
    wait_for(lambda: "/activations/jobs?worker=" in browser.script("location.href"), "no link")
    wait_for(lambda: browser.script("document.readyState") == "complete", "the page did not load")
    links = '[...document.querySelectorAll(\'section[aria-label="Jobs found"] a[href^="job/"]\')]'
    found = browser.script(f"{links}.map(a => a.getAttribute('href').slice('job/'.length))")
    records = [producer.ledger.get(job.job_id) for job in jobs]
    theirs = [record.job_id for record in reversed(records) if record.worker == slow_name]  # as who took it last
    assert theirs
    assert sorted(found) == sorted(theirs[:100])
    assert browser.errors == []


def pressed(browser: Browser, selector: str) -> None:
    """Press a button and say yes."""
    browser.accept_dialogs = True
    browser.script(f"document.querySelector({selector!r}).click()")


def test_a_job_is_cancelled_and_sent_again_on_its_page(
    flower: Flower, browser: Browser, start_worker: Callable[..., WorkerProcess], producer: Producer
) -> None:
    job = producer.activate(crops(1, side=96)[0], name="waits.jpg")
    opened(browser, flower, f"/activations/job/{job.job_id}")
    assert browser.script(_STATE) == "queued"
    browser.script("document.querySelector('[data-post*=\"cancel/\"]').click()")  # and no yes
    assert job.state() is JobState.QUEUED
    pressed(browser, '[data-post*="cancel/"]')
    wait_for(lambda: job.state() is JobState.CANCELLED, "it was not cancelled")

    opened(browser, flower, f"/activations/job/{job.job_id}")
    assert browser.script(_STATE) == "cancelled"
    assert browser.script("document.querySelector('[data-post*=\"cancel/\"]')") is None
    assert "Cancelled by an operator" in browser.text("dd.bad")
    kept(browser, "cancelled-job")
    opened(browser, flower, "/activations/jobs?state=cancelled")
    assert job.job_id[:12] in browser.text("table")
    start_worker()
    pressed(browser, '[data-post^="retry/"]')
    wait_for(lambda: job.state() is JobState.DONE, "it was not sent again")
    opened(browser, flower, f"/activations/job/{job.job_id}")
    assert browser.script(_STATE) == "done"
    assert browser.errors == []


def test_a_poison_image_is_named_and_the_worker_it_ended_is_missed(
    flower: Flower,
    browser: Browser,
    start_worker: Callable[..., WorkerProcess],
    producer: Producer,
    tmp_path: Path,
) -> None:
    prepare = partial(install, tmp_path / "hook")
    worker = start_worker(prepare=prepare)
    opened(browser, flower)
    poison = producer.activate(crashing(), asset_id="the-poison")
    wait_for(lambda: not worker.alive(), "the image did not end its worker")
    wait_for(lambda: "No worker" in browser.text("#aii-banner"), "the dead worker is not missed")
    start_worker(prepare=prepare)
    wait_for(lambda: poison.state() is JobState.FAILED, "it did not end")
    wait_for(lambda: "poison" in browser.text("#aii-failures"), "the failure is not counted")
    wait_for(lambda: poison.job_id[:8] in browser.text("#aii-failed"), "the failed job is not shown")
    wait_for(lambda: "No worker" not in browser.text("#aii-banner"), "the new worker is not seen")
    kept(browser, "poison")
    opened(browser, flower, "/activations/jobs?q=poison&state=failed")
    assert poison.job_id[:12] in browser.text("table")
    opened(browser, flower, f"/activations/job/{poison.job_id}")
    assert "[poison]" in browser.text("dd.bad")
    kept(browser, "poison-job")
    assert browser.errors == []


def test_dead_letters_are_sent_again_and_dropped_on_the_page_of_jobs(
    flower: Flower, browser: Browser, start_worker: Callable[..., WorkerProcess], settings: Settings
) -> None:
    start_worker()
    with connect_redis(settings) as client:
        letters = DeadLetters(client)
        client.lpush("activate", "no message")
        client.lpush("activate", '{"no": "envelope"}')
        wait_for(lambda: letters.count() == 2, "they were not set aside")
        opened(browser, flower, "/activations/jobs")
        assert "no message" in browser.text("#dead")
        kept(browser, "dead-letters")
        entries = {letter.entry: letter for letter in letters.newest(10)}
        resend = '[data-post^="dead/resend/"]'
        pressed(browser, resend)
        wait_for(lambda: not entries.keys() <= {letter.entry for letter in letters.newest(10)}, "it was not sent again")
        wait_for(lambda: letters.count() == 2, "what cannot be read is not set aside again")
        opened(browser, flower, "/activations/jobs")
        pressed(browser, '[data-post^="dead/drop/"]')
        wait_for(lambda: letters.count() == 1, "it was not dropped")
    assert browser.errors == []
