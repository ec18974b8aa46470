"""A job runner within a test's process, on the session's Redis and S3."""

from __future__ import annotations

from dataclasses import dataclass, field

from tasks.connection import connect_redis
from tasks.ledger.dead_letters import DeadLetters
from tasks.ledger.ledger import Ledger
from tasks.results import Result
from tasks.settings import Settings
from tasks.storage import ObjectStore
from workers.delivery.identity import Identity
from workers.delivery.isolation import Isolation
from workers.delivery.job_runner import JobRunner, Services
from workers.delivery.leases import Leases
from workers.delivery.retry_policy import JobRetryPolicy
from workers.delivery.set_aside import SetAside

__all__ = ["Runs"]


@dataclass
class Runs:
    """A runner, what it observed, and whether it wanted to end its process."""

    settings: Settings
    ledger: Ledger
    store: ObjectStore
    stage_timeout_s: float = 60.0
    seen: list[Result] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.letters = DeadLetters(connect_redis(self.settings))
        self.leases = Leases(self.ledger, lease_s=20)
        identity, policy = Identity("worker", "cpu", {}), JobRetryPolicy(first_s=0.001, longest_s=0.01)
        set_aside = SetAside(self.letters)
        services = Services(self.ledger, self.store, self.leases, identity, policy, Isolation(), set_aside)
        self.runner = JobRunner(services, self.stage_timeout_s, self.seen.append, lambda: self.ended.append("ended"))
