"""How a worker ends that has lost a thread to a job: the jobs of its other threads go to other workers first."""

from __future__ import annotations

import logging
import os
from typing import Final

from tasks.app import Sender
from tasks.errors import RedisUnavailable
from tasks.ledger.ledger import Ledger
from workers.delivery.leases import Leases

__all__ = ["hand_back", "hand_back_and_end"]

logger = logging.getLogger(__name__)

_EXIT_FAILURE: Final = 70


def hand_back(ledger: Ledger, leases: Leases, sender: Sender) -> int:
    """Put every job of this process back into its queue, without a mark against it; returns how many those were. What
    Redis does not take now is sent again when its lease runs out."""
    count = 0
    for job_id, token in leases.drop_all().items():
        try:
            if message := ledger.recovery.requeue(job_id, token):
                sender.send_again(message)
                count += 1
        except RedisUnavailable as error:
            logger.warning("A job could not be handed back: %s", error, extra={"job_id": job_id})
        except Exception:  # of one record: the others are handed back nevertheless
            logger.exception("A job could not be handed back", extra={"job_id": job_id})
    return count


def hand_back_and_end(ledger: Ledger, leases: Leases, sender: Sender) -> None:
    """Leave at once, with a status that makes a supervisor start a new worker."""
    logger.critical("This worker ends: %d jobs are handed back", hand_back(ledger, leases, sender))
    logging.shutdown()
    os._exit(_EXIT_FAILURE)
