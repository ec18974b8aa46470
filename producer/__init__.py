"""For applications that have images: submit them, wait for results, find copies. Loads neither torch nor FAISS.

from producer import Producer

producer = Producer.connect()
job = producer.activate("photo.jpg")
result = job.wait(timeout_s=60)
producer.download_protected(result, "protected.jpg")
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from producer.client import Job, Producer

__all__ = ["Job", "Producer"]


def __getattr__(name: str) -> Any:
    """Import the client when it is first used: `aii --help`, which imports this package too, does without it."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from producer import client  # noqa: PLC0415

    return getattr(client, name)
