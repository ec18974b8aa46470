"""Small notes in S3, each a JSON object of one model: what all of their readers do about one that cannot be read.

A missing note says that there is nothing to know. A damaged one says that something is not known: that is told, never
taken for the former, unless a reader's own docstring says why it may be.
"""

from __future__ import annotations

from typing import Final, TypeVar

from pydantic import ValidationError

from tasks.errors import CorruptSegment, ObjectMissing, TooLarge
from tasks.messages import Frozen
from tasks.storage import Bucket, ObjectStore

__all__ = ["read_note"]

_MOST_BYTES: Final = 1 << 20

Note = TypeVar("Note", bound=Frozen)


def read_note(store: ObjectStore, bucket: Bucket, key: str, model: type[Note], remedy: str) -> Note | None:
    """A note; None where there is none.

    Args:
        remedy: what an operator does about a damaged one, as the end of a sentence.

    Raises:
        CorruptSegment: it is damaged.
    """
    try:
        return model.model_validate_json(store.get(bucket, key, _MOST_BYTES))
    except ObjectMissing:
        return None
    except (ValidationError, TooLarge) as error:
        raise CorruptSegment(f"The note {key} in the bucket of {bucket.value} is damaged: {remedy}.") from error
