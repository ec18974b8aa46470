"""All scenarios: what is broken on purpose, and how much of it in the short and in the full form."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.faults.bench import Bench, Outcome
from tests.faults.scenarios import collections, deliveries, redis_away, s3_away, workers

__all__ = ["SCENARIOS", "Scenario"]


@dataclass(frozen=True)
class Scenario:
    """`short` and `full` are sizes; the docstring of `run` says what is done, and the name of its argument of what."""

    name: str
    run: Callable[[Bench, int], Outcome]
    short: int
    full: int


SCENARIOS = (
    Scenario("two images for one asset", deliveries.two_images_for_one_asset, 2, 50),
    Scenario("corrupt image in a batch", deliveries.corrupt_in_a_batch, 1, 10),
    Scenario("hostile images", deliveries.hostile_images, 1, 5),
    Scenario("hostile names", deliveries.hostile_names, 1, 5),
    Scenario("same message ten times", deliveries.ten_times, 4, 50),
    Scenario("garbage in the queues", deliveries.garbage, 20, 3_000),
    Scenario("queries beside a backlog", deliveries.queries_beside_a_backlog, 60, 5_000),
    Scenario("S3 refuses with 403", s3_away.refused, 2, 20),
    Scenario("every third PUT cut", s3_away.cut_puts, 16, 300),
    Scenario("bucket missing", s3_away.bucket_missing, 1, 30),
    Scenario("S3 down", s3_away.down, 1, 30),
    Scenario("S3 frozen", s3_away.frozen, 1, 60),
    Scenario("S3 killed", s3_away.killed, 1, 10),
    Scenario("Redis down", redis_away.down, 2, 60),
    Scenario("Redis frozen", redis_away.frozen, 2, 60),
    Scenario("Redis at maxmemory", redis_away.full, 1, 30),
    Scenario("all clients killed each second", redis_away.clients_killed, 2, 30),
    Scenario("password refused", redis_away.password_changed, 1, 30),
    Scenario("rights withdrawn", redis_away.rights_withdrawn, 1, 30),
    Scenario("half-open sockets", redis_away.half_open, 1, 1),
    Scenario("Redis killed", redis_away.killed, 1, 10),
    Scenario("worker killed", workers.killed, 1, 20),
    Scenario("worker asleep past its lease", workers.asleep_past_its_lease, 16, 100),
    Scenario("idle worker frozen, then killed", workers.idle_frozen_then_killed, 4, 40),
    Scenario("SIGTERM with work queued", workers.told_to_stop, 24, 200),
    Scenario("crash at eight points", workers.crash_at_each_point, 1, 20),
    Scenario("poison", workers.poison, 8, 30),
    Scenario("hung task", workers.hung, 4, 30),
    Scenario("out of memory", workers.out_of_memory, 16, 200),
    Scenario("wrong secrets", workers.wrong_secrets, 2, 20),
    Scenario("changed model file", workers.changed_model, 2, 20),
    Scenario("three visibility timeouts", deliveries.redelivered, 3, 6),
    Scenario("key missing", s3_away.key_missing, 4, 40),
    Scenario("no space left", collections.full_disk, 4, 40),
    Scenario("damaged files", collections.damaged, 1, 20),
    Scenario("compaction killed", collections.killed_compaction, 3, 20),
    Scenario("swaps under queries", collections.swapped_under_queries, 3, 20),
)
