"""Fair shares of the workers: a client's backlog keeps the other clients waiting for their turn, not for its end.

Beside the queues ``query`` and ``activate`` there are sixteen share queues each, ``activate.1`` to ``activate.16``. A
client's jobs go to the one that the digest of its name chooses, those of no named client to the queue itself. A worker
takes from all of them in turns: kombu moves the list that gave a message to the end. Each is first in, first out, and
for the ledger a queue like any other, with places and lost messages of its own; people are shown the sum.

Of sixteen pairs of clients, one has the same share queue: those two delay each other as in one queue, which
`aii tokens add --open N` bounds. A waiting list for each client in the ledger, from which workers fill the queue, would
know no such pairs. But each job would be moved once more, by a process that may die meanwhile, and all that counts,
cancels or finds lost jobs would have a further state to know.

Workers of earlier versions take nothing from share queues: what is sent there waits for the first worker of this one.
"""

from __future__ import annotations

from typing import Final

from tasks.names import QUEUE_ACTIVATE, QUEUE_QUERY, QUEUES, sha256_hex

__all__ = ["ALL_QUEUES", "SHARES", "base_queue", "queues_of", "share_of", "share_queue"]

SHARES: Final = 16
_SHARED: Final = (QUEUE_QUERY, QUEUE_ACTIVATE)  # of the index there are few jobs, and no client's


def share_queue(queue: str, client: str) -> str:
    """The queue of a client's jobs: `queue` itself for ``""``, or where there are no shares."""
    if not client or queue not in _SHARED:
        return queue
    return f"{queue}.{int(sha256_hex(client.encode())[:8], 16) % SHARES + 1}"


def queues_of(queue: str) -> tuple[str, ...]:
    """A queue and its share queues."""
    return (queue, *(f"{queue}.{share}" for share in range(1, SHARES + 1))) if queue in _SHARED else (queue,)


ALL_QUEUES: Final = tuple(name for queue in QUEUES for name in queues_of(queue))
_BASE: Final = {name: queue for queue in QUEUES for name in queues_of(queue)}


def base_queue(queue: str) -> str:
    """The queue that a share queue is of; any other name as it is."""
    return _BASE.get(queue, queue)


def share_of(queue: str) -> str:
    """The number in a share queue's name, by which one client's queries and activations are told from another's; ""
    for a queue itself."""
    return queue.removeprefix(base_queue(queue)).removeprefix(".")
