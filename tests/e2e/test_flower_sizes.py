"""The page on a telephone, on desks and on a wall, in the light and in the dark: with work, and empty.

With ``AII_TEST_SCREENSHOTS=DIR``, what it looked like is left there.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from producer import Producer
from tests.browser import Browser
from tests.flower import Flower
from tests.photographs import crops
from tests.stack import WorkerProcess
from tests.waiting import LIMIT_S, wait_for

SIZES = {400: 850, 1280: 1000, 2560: 1440, 3840: 2160}
SCHEMES = ("light", "dark")
# Text that is cut off without an ellipsis, or that lies on other text, as [what, its words].
_HIDDEN = """[...document.querySelectorAll('.aii :is(h1, h2, h3, b, td, th, strong, small, figcaption, button, dd)')]
    .filter(e => e.checkVisibility() && e.scrollWidth > e.clientWidth + 1 && getComputedStyle(e).display !== 'inline' &&
            getComputedStyle(e).textOverflow !== 'ellipsis' && getComputedStyle(e).overflowX !== 'visible')
    .map(e => [e.tagName, e.textContent.slice(0, 40)])"""
_OVERLAPS = """(() => {
    const texts = [...document.querySelectorAll('.aii :is(h1, h2, h3, b, td, th, strong, p, dd, label)')]
        .filter(e => e.checkVisibility() && e.textContent.trim() && !e.closest('svg'));
    const boxes = texts.map(e => {
        const range = document.createRange();
        range.selectNodeContents(e);
        const box = range.getBoundingClientRect(), clipped = getComputedStyle(e).overflowX !== 'visible';
        const right = clipped ? Math.min(box.right, e.getBoundingClientRect().right) : box.right;
        return { left: box.left, right, top: box.top, bottom: box.bottom };
    });
    const found = [];
    for (let i = 0; i < texts.length; i++) for (let j = i + 1; j < texts.length; j++) {
        if (texts[i].contains(texts[j]) || texts[j].contains(texts[i])) continue;
        const x = Math.min(boxes[i].right, boxes[j].right) - Math.max(boxes[i].left, boxes[j].left);
        const y = Math.min(boxes[i].bottom, boxes[j].bottom) - Math.max(boxes[i].top, boxes[j].top);
        if (x > 3 && y > 6) found.push([texts[i].textContent.slice(0, 40), texts[j].textContent.slice(0, 40)]);
    }
    return found;
})()"""

# Names of images beside which the verification does not stand on the right, or is cut off.
_BESIDE_NAMES = """[...document.querySelectorAll('.aii .shot .name')]
    .map(e => [e.querySelector('a'), [...e.querySelectorAll('span')].find(s => /verified|passive/.test(s.textContent))])
    .filter(([name, said]) => said && (said.getBoundingClientRect().left < name.getBoundingClientRect().right - 1 ||
            said.getBoundingClientRect().right > name.parentElement.getBoundingClientRect().right + 1))
    .map(([name]) => name.textContent)"""


def looks(browser: Browser, flower: Flower, path: str, name: str, ready: str) -> Iterator[tuple[str, object]]:
    """What is wrong at any size, with its picture's name; keep the pictures where that is wished.

    Args:
        ready: a script that is true once the page is filled.
    """
    browser.prefer(prefers_color_scheme="light", prefers_reduced_motion="reduce")
    browser.open(f"{flower.url}/activations{path}", Authorization=flower.authorization)
    wait_for(lambda: browser.script(ready), f"{path} stays empty")
    wait_for(lambda: browser.script("[...document.images].every(i => i.complete)"), "pictures do not come")
    for width, height in SIZES.items():
        browser.resize(width, height)
        if (needed := browser.script("document.documentElement.scrollWidth")) > width:
            yield f"{name}-{width}", f"{needed} pixels wide"
        yield from ((f"{name}-{width}", found) for script in (_HIDDEN, _OVERLAPS) for found in browser.script(script))
        for scheme in SCHEMES:
            browser.prefer(prefers_color_scheme=scheme, prefers_reduced_motion="reduce")
            if folder := os.environ.get("AII_TEST_SCREENSHOTS"):
                browser.screenshot(
                    Path(folder, f"{name}-{width}-{scheme}.png"), whole=name not in ("kiosk", "operations")
                )


_FILLED = "document.querySelectorAll('#aii-mission .figure').length > 0"


def test_an_empty_page_says_what_to_do_next_at_any_size(flower: Flower, browser: Browser) -> None:
    assert list(looks(browser, flower, "", "empty", _FILLED)) == []
    wait_for(lambda: "aii activate" in browser.text("#aii-shots"), "nothing says what to do next")
    wait_for(lambda: "aii up" in browser.text("#aii-banner"), "nothing says how to start a worker")
    assert browser.errors == []


def test_a_page_with_work_fits_every_screen(
    flower: Flower, browser: Browser, start_worker: Callable[..., WorkerProcess], producer: Producer
) -> None:
    start_worker()
    photos = crops(6, side=160)
    odd = ["a very long name of a file with many words " * 4 + ".jpg", "תמונה 12.jpg", "to the left \u202egpj.exe"]
    names = [*(f"photo-{i}.jpg" for i in range(3)), *odd]
    done = [producer.activate(photo, name=name) for photo, name in zip(photos, names, strict=True)]
    bad = producer.activate(photos[0][:700])
    for job in done:
        job.wait(LIMIT_S)
    asked = [producer.query(photos[0]), producer.query(crops(9, side=96)[8])]
    for job in asked:
        job.wait(LIMIT_S)
    wait_for(lambda: bad.state().closed, "the damaged image did not end")
    with_queries = "document.querySelectorAll('#aii-latest-queries .shot').length === 2"
    pages = {
        "": ("work", f"{_FILLED} && {with_queries}"),
        "?kiosk": ("kiosk", f"{_FILLED} && {with_queries}"),
        "/jobs": ("jobs", "document.querySelectorAll('tbody tr').length === 9"),
        f"/job/{done[3].job_id}": ("job", "document.querySelectorAll('.waterfall tr').length > 0"),
        f"/job/{asked[0].job_id}": ("query-job", "document.querySelectorAll('.waterfall tr').length > 0"),
        "/operations": ("operations", "document.querySelectorAll('h2').length > 0"),
    }
    wrong = [w for path, (name, ready) in pages.items() for w in looks(browser, flower, path, name, ready)]
    assert wrong == []
    browser.open(f"{flower.url}/activations", Authorization=flower.authorization)
    wait_for(
        lambda: browser.script("document.querySelectorAll('.shot .name').length > 4"), "the images did not come back"
    )
    assert browser.script(_BESIDE_NAMES) == []
    assert browser.errors == []
