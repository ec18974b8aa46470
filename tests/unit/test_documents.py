"""What the documents promise: links lead somewhere, and every alert says what to do."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted(
    path.relative_to(ROOT)
    for folder in (".", "producer", "tasks", "workers", "deploy", "tests", ".github")
    for path in (ROOT.glob("*.md") if folder == "." else (ROOT / folder).rglob("*.md"))
)
OPERATIONS = Path("deploy/README.md")


def anchors(document: Path) -> set[str]:
    """Of a document's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", without_code((ROOT / document).read_text()), re.MULTILINE)
    plain = (re.sub(r"[`*]|\[|\]\([^)]*\)", "", heading).lower() for heading in headings)
    return {re.sub(r"[^\w\- ]", "", heading).replace(" ", "-") for heading in plain}


def without_code(text: str) -> str:
    return re.sub(r"```.*?```", "", text, flags=re.DOTALL)


def alerts() -> list[str]:
    return re.findall(r"- alert: (\w+)", (ROOT / "deploy/monitoring/alerts.yml").read_text())


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_every_link_of_a_document_leads_to_a_file_and_a_heading_that_exist(document: Path) -> None:
    text = without_code((ROOT / document).read_text())
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        linked = (ROOT / document).parent.joinpath(path).resolve() if path else ROOT / document
        assert linked.exists(), target
        if anchor:
            assert anchor in anchors(linked.relative_to(ROOT)), target


@pytest.mark.parametrize("alert", alerts())
def test_every_alert_has_a_row_and_a_section_that_its_annotation_points_to(alert: str) -> None:
    text = (ROOT / OPERATIONS).read_text()
    assert re.search(rf"^\| \[{alert}\]\(#{alert.lower()}\) \| [^|]+ \| [^|]+ \|$", text, re.MULTILINE)
    assert alert.lower() in anchors(OPERATIONS)
    rules = (ROOT / "deploy/monitoring/alerts.yml").read_text()
    (rule,) = re.findall(rf"- alert: {alert}\b.*?(?=- alert:|\Z)", rules, re.DOTALL)
    assert f"runbook: {OPERATIONS}#{alert.lower()}\n" in rule + "\n"


def test_no_section_is_of_an_alert_that_does_not_exist() -> None:
    sections = set(re.findall(r"^### (Aii\w+)$", (ROOT / OPERATIONS).read_text(), re.MULTILINE))
    assert sections == set(alerts())
