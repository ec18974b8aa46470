"""For applications that have images: submit them, wait for results, find copies. Loads neither torch nor FAISS.

from producer import Producer

producer = Producer.connect()
job = producer.activate("photo.jpg")
result = job.wait(timeout_s=60)
producer.download_protected(result, "protected.jpg")
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from producer.aio import AsyncJob, AsyncProducer
    from producer.client import Producer
    from producer.job import ActivationJob, CardJob, ExplanationJob, FeedbackJob, Job, LookupJob, QueryJob
    from producer.many import Finished, Submitted
    from producer.requests import Activation, Image, Query
    from tasks import errors
    from tasks.errors import (
        AiiError,
        AssetConflict,
        BadInput,
        Cancelled,
        CollectionMissing,
        Conflict,
        DeadlineExceeded,
        InvalidRequest,
        JobMissing,
        NotFound,
        RedisUnavailable,
        StorageUnavailable,
        Unavailable,
    )
    from tasks.ledger.states import JobState
    from tasks.messages import ActivationOptions, QueryOptions, S3Object, Source
    from tasks.results import (
        ActivationResult,
        Assessment,
        CardResult,
        ExplanationResult,
        FailureResult,
        FeedbackResult,
        LookupResult,
        Match,
        QueryResult,
    )
    from tasks.settings import Settings, load_settings

__all__ = [
    "Activation",
    "ActivationJob",
    "ActivationOptions",
    "ActivationResult",
    "AiiError",
    "Assessment",
    "AssetConflict",
    "AsyncJob",
    "AsyncProducer",
    "BadInput",
    "Cancelled",
    "CardJob",
    "CardResult",
    "CollectionMissing",
    "Conflict",
    "DeadlineExceeded",
    "ExplanationJob",
    "ExplanationResult",
    "FailureResult",
    "FeedbackJob",
    "FeedbackResult",
    "Finished",
    "Image",
    "InvalidRequest",
    "Job",
    "JobMissing",
    "JobState",
    "LookupJob",
    "LookupResult",
    "Match",
    "NotFound",
    "Producer",
    "Query",
    "QueryJob",
    "QueryOptions",
    "QueryResult",
    "RedisUnavailable",
    "S3Object",
    "Settings",
    "Source",
    "StorageUnavailable",
    "Submitted",
    "Unavailable",
    "errors",
    "load_settings",
]

_HOMES = {
    "producer.aio": ("AsyncJob", "AsyncProducer"),
    "producer.client": ("Producer",),
    "producer.job": ("ActivationJob", "CardJob", "ExplanationJob", "FeedbackJob", "Job", "LookupJob", "QueryJob"),
    "producer.many": ("Finished", "Submitted"),
    "producer.requests": ("Activation", "Image", "Query"),
    "tasks.ledger.states": ("JobState",),
    "tasks.messages": ("ActivationOptions", "QueryOptions", "S3Object", "Source"),
    "tasks.results": (
        "ActivationResult",
        "Assessment",
        "CardResult",
        "ExplanationResult",
        "FailureResult",
        "FeedbackResult",
        "LookupResult",
        "Match",
        "QueryResult",
    ),
    "tasks.settings": ("Settings", "load_settings"),
}
_ABOVE = __name__.removesuffix("producer")  # "", unless this is `active_image_indexing.producer`
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Import a part when it is first used: `aii --help`, which imports this package too, does without the client."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = _HOME_OF.get(name, "tasks.errors")
    module = import_module(f"{_ABOVE}{home}")
    return module if name == "errors" else getattr(module, name)
