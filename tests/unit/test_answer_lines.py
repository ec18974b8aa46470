"""What one line of `aii query` says of an answer."""

from __future__ import annotations

import pytest

from producer.output import answer_line
from tasks.results import Assessment, LookupAnswer, Match, Verdict

DIGEST = "ab" * 32


def answer(verdict: Verdict, *matches: Match, threshold: float | None = 0.6) -> LookupAnswer:
    return LookupAnswer(
        matches=list(matches), threshold=threshold, verdict=verdict, assessment=Assessment(reason="", assets=3)
    )


def match(asset_id: str, distance: float, name: str = "") -> Match:
    return Match(asset_id=asset_id, name=name, distance=distance, meta={})


def test_an_asset_is_named_as_its_file_was_and_by_its_id() -> None:
    assert answer_line(answer("match", match(DIGEST, 0.2, "Sea 1.jpg"))) == (
        "match abababababababab… (Sea 1.jpg) at distance 0.200, threshold 0.600"
    )
    for name in ("", "photo-7"):
        assert answer_line(answer("possible", match("photo-7", 0.7, name))) == (
            "possible match photo-7 at distance 0.700, threshold 0.600"
        )


def test_a_match_says_how_many_others_are_near_enough_to_be_the_image() -> None:
    others = [match("b", 0.3), match("c", 0.6), match("d", 0.61)]
    assert answer_line(answer("match", match("a", 0.2), *others)).endswith("threshold 0.600, 2 more within it")
    assert "more" not in answer_line(answer("match", match("a", 0.2), *others, threshold=None))
    assert "more" not in answer_line(answer("match", match("a", 0.2), match("d", 0.61)))


def test_names_cannot_move_the_terminals_cursor() -> None:
    line = answer_line(answer("match", match("a", 0.2, "x\x1b[2J\ny.jpg")))
    assert line.isprintable()


@pytest.mark.parametrize("verdict", ["no_match", "uninformative", "incomplete"])
def test_what_matched_nothing_says_so_with_and_without_a_nearest_asset(verdict: Verdict) -> None:
    with_nearest = answer_line(answer(verdict, match("a", 0.9)))
    assert with_nearest.startswith(answer_line(answer(verdict)) + " (nearest: a at distance 0.900")
