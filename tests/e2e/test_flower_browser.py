"""The page as a person sees it: in a real browser, on the running stack.

With ``AII_TEST_SCREENSHOTS=DIR``, what it looked like is left there.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from producer import Producer
from tasks.results import ActivationResult
from tasks.settings import Settings
from tests.browser import Browser, browser_program
from tests.flower import Flower
from tests.photographs import crops
from tests.stack import WorkerProcess
from tests.waiting import LIMIT_S, wait_for

WIDTHS = {1280: 1000, 400: 850}
_PROGRAM = browser_program()

pytestmark = pytest.mark.skipif(_PROGRAM is None, reason="no Chromium or Chrome is installed")


@pytest.fixture
def flower(stack_environment: dict[str, str], settings: Settings, tmp_path: Path) -> Iterator[Flower]:
    pytest.importorskip("flower")
    flower = Flower(dict(os.environ) | stack_environment, tmp_path / "flower.log").wait_until_ready()
    yield flower
    flower.stop()


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    browser = Browser(str(_PROGRAM), tmp_path / "profile")
    yield browser
    browser.close()


def cells(browser: Browser, table: str, first: str) -> list[str]:
    """The texts of the row of a table that begins with a word."""
    rows = f"[...document.querySelectorAll('#aii-{table} tr')].map(r => [...r.cells].map(c => c.textContent))"
    found = browser.script(f"{rows}.find(r => r[0] === {first!r})")
    return [] if found is None else [str(text) for text in found]


def shown_images(browser: Browser) -> int:
    words = browser.text("#aii-activations").split()
    return int(words[0]) if words else 0


def open_page(browser: Browser) -> None:
    """Nothing sticks out at any width; keep a picture where that is wished."""
    for width, height in WIDTHS.items():
        browser.resize(width, height)
        assert browser.script("document.documentElement.scrollWidth") <= width
        if folder := os.environ.get("AII_TEST_SCREENSHOTS"):
            browser.screenshot(Path(folder, f"flower-{width}.png"), whole=True)
    browser.resize(1280, WIDTHS[1280])


def test_the_page_follows_activations_and_failures_and_retries_what_is_confirmed(
    flower: Flower, browser: Browser, start_worker: Callable[..., WorkerProcess], producer: Producer
) -> None:
    start_worker()
    browser.resize(1280, WIDTHS[1280])
    browser.open(f"{flower.url}/activations", Authorization=flower.authorization)
    wait_for(lambda: "updated" in browser.text("#aii-updated"), "the page stays empty")
    assert shown_images(browser) == 0

    # Figures rise while images are activated, and agree with the result documents.
    photos = crops(24, side=160)
    results = [job.wait(LIMIT_S) for job in [producer.activate(photo) for photo in photos[:12]]]
    wait_for(lambda: shown_images(browser) == 12, "the page does not follow")
    results += [job.wait(LIMIT_S) for job in [producer.activate(photo) for photo in photos[12:]]]
    wait_for(lambda: shown_images(browser) == 24, "the page does not follow")
    documents = [result for result in results if isinstance(result, ActivationResult)]
    for stage, label in (("total", "in all"), ("decode", "decode"), ("optimise", "extract and optimise")):
        times = sorted(document.provenance.timings_ms[stage] for document in documents)
        shown = [float(text.replace(",", "")) for text in cells(browser, "activate", label)[2:]]
        assert shown[0] == pytest.approx(statistics.mean(times), rel=0.05), stage
        assert times[11] * 0.95 <= shown[1] <= times[12] * 1.05, stage  # a median of 24 is any value between these
    psnr = [document.quality.psnr_db for document in documents if document.quality.psnr_db is not None]
    assert f"lowest {min(psnr):.1f} dB" in browser.text("#aii-quality")
    assert "Activation, 10 steps" in browser.text("#aii-mission")
    assert "39.8" in browser.text("#aii-mission")

    bad = producer.activate(photos[0][:700])
    wait_for(lambda: cells(browser, "failures", "truncated"), "the failure is not shown")
    wait_for(lambda: bad.job_id[:8] in browser.text("#aii-failed"), "the failed job is not shown")
    assert "1 failed" in browser.script("document.title")
    wait_for(lambda: browser.script("[...document.images].every(i => i.complete && i.naturalWidth)"), "no pictures")
    open_page(browser)

    # Retrying needs a yes.
    submitted = producer.ledger.get(bad.job_id).submitted_at
    browser.script("document.querySelector('#aii-failed button').click()")
    assert (producer.ledger.get(bad.job_id).submitted_at, len(browser.dialogs)) == (submitted, 1)
    assert bad.job_id in browser.dialogs[0]
    browser.accept_dialogs = True
    browser.script("document.querySelector('#aii-failed button').click()")
    wait_for(lambda: producer.ledger.get(bad.job_id).submitted_at > submitted, "it was not tried again")
    wait_for(lambda: cells(browser, "failures", "truncated")[1] == "2", "the second failure is not shown")
    assert browser.errors == []

    # Without the password nothing is seen.
    browser.open(f"{flower.url}/activations")
    assert browser.text("body") in ("", "Access denied")
    assert "401" in "".join(browser.errors)


def test_a_page_that_gets_no_answer_says_so_and_dims(flower: Flower, browser: Browser) -> None:
    browser.open(f"{flower.url}/activations", Authorization=flower.authorization)
    wait_for(lambda: "updated" in browser.text("#aii-updated"), "the page stays empty")
    flower.stop()
    wait_for(lambda: "does not answer" in browser.text("#aii-away"), "the page pretends to be up to date")
    assert browser.script("document.querySelector('#aii').classList.contains('stale')")
    assert "no figures" in browser.script("document.title")
