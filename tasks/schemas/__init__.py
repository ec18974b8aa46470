"""JSON Schemas of every message and document, for other languages: beside this file, made of the models.

``python -m tasks.schemas`` writes them, and the ids of ``vectors.json``. A change of a model that other languages must
know of gets another `schema_version`; a field with a default does not.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import TypeAdapter
from typing_extensions import TypedDict

from tasks.assets.records import AssetRecord
from tasks.identity import SCHEMA_VERSION
from tasks.kinds import KINDS
from tasks.ledger.states import JobState
from tasks.results import FailureResult

__all__ = ["FOLDER", "CloudEvent", "schemas"]

FOLDER: Final = Path(__file__).parent
_DRAFT: Final = "https://json-schema.org/draft/2020-12/schema"


class EventData(TypedDict):
    """What an event says of the job; `document` is the number of its result document, 0 where it has none."""

    state: JobState
    task: str
    document: int
    error_code: str


class CloudEvent(TypedDict):
    """The end of a job as :meth:`tasks.ledger.events.JobEvent.cloud_event` gives it (CloudEvents 1.0, structured)."""

    specversion: Literal["1.0"]
    id: str
    source: str
    type: str
    subject: str
    time: str
    datacontenttype: Literal["application/json"]
    data: EventData


def schemas() -> Mapping[str, dict[str, Any]]:
    """Every schema, by the name of its file without ``.json``: requests as they are sent, documents as they are read
    (those of version 0.1.0 too)."""
    models: dict[str, Any] = {f"{kind.title}-request": kind.request for kind in KINDS}
    models |= {f"{kind.title}-result": kind.result for kind in KINDS}
    models |= {"failure-result": FailureResult, "asset-record": AssetRecord, "event": CloudEvent}
    return {name: _schema(name, model) for name, model in models.items()}


def _schema(name: str, model: Any) -> dict[str, Any]:
    made = TypeAdapter(model).json_schema(mode="validation")
    return {"$schema": _DRAFT, "$id": f"urn:aii:schema:{SCHEMA_VERSION}:{name}", **made}
