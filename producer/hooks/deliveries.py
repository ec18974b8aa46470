"""Deliveries: one for each event and hook.

    pending ──delivered──▶ done          each is known by {hook}:{event}
       │  ▲
       └──┴─failed─────▶ given up        after a day

Keys:
    aii:hooks:outbox          stream that workers write: the ends of jobs, bounded
    aii:hooks:delivery:{id}   hash: hook, event (JSON), attempts, first_ms, last_ms, answer
    aii:hooks:pending         sorted set of deliveries by the time (ms) at which they are tried next
    aii:hooks:done, :failed   sorted sets by time (ms): the last 10,000 of each, which can be sent again
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import redis

from producer.hooks.registry import Hook
from tasks.connection import RedisClient
from tasks.errors import NotFound
from tasks.ledger.events import JobEvent
from tasks.ledger.scripts import NOW
from tasks.ledger.states import JobState

__all__ = ["Deliveries", "Delivery", "Kept"]

_OUTBOX: Final = "aii:hooks:outbox"
_PENDING: Final = "aii:hooks:pending"
_GROUP: Final = "deliver"
_MOST_PENDING: Final = 100_000
_KEPT: Final = 10_000
_KEEP_S: Final = 7 * 86_400
_FIRST_PAUSE_MS: Final = 1_000
_LONGEST_PAUSE_MS: Final = 3_600_000
_GIVE_UP_MS: Final = 86_400_000
# Longer than one try takes: what a killed process was at is tried again then.
_CLAIM_MS: Final = 60_000

Kept = Literal["done", "failed"]

# KEYS pending, outbox; ARGV group, entry, then delivery, hook, event for each.
# An entry leaves the outbox only with its deliveries; one that there is already is not made again.
_FAN_OUT: Final = (
    NOW
    + """
for i = 3, #ARGV, 3 do
  local key = 'aii:hooks:delivery:' .. ARGV[i]
  if redis.call('EXISTS', key) == 0 then
    redis.call('HSET', key, 'hook', ARGV[i + 1], 'event', ARGV[i + 2], 'attempts', 0, 'first_ms', now)
    redis.call('ZADD', KEYS[1], now, ARGV[i])
  end
end
redis.call('XACK', KEYS[2], ARGV[1], ARGV[2])
redis.call('XDEL', KEYS[2], ARGV[2])
"""
)

# KEYS pending; ARGV most, claim_ms.  Returns deliveries that are due, which are the caller's until the claim is over.
_CLAIM: Final = (
    NOW
    + """
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[1])
for _, id in ipairs(due) do redis.call('ZADD', KEYS[1], now + ARGV[2], id) end
return due
"""
)

# KEYS delivery, pending, done, failed; ARGV id, '1' if delivered, answer, pause_ms, give_up_ms, kept, keep_s.
# Returns what became of it.
_NOTE: Final = (
    NOW
    + """
local first = redis.call('HGET', KEYS[1], 'first_ms')
if not first or not redis.call('ZSCORE', KEYS[2], ARGV[1]) then return 'gone' end
redis.call('HINCRBY', KEYS[1], 'attempts', 1)
redis.call('HSET', KEYS[1], 'last_ms', now, 'answer', ARGV[3])
local list, said = KEYS[3], 'done'
if ARGV[2] ~= '1' then
  if now + ARGV[4] - first < tonumber(ARGV[5]) then
    redis.call('ZADD', KEYS[2], now + ARGV[4], ARGV[1])
    return 'later'
  end
  list, said = KEYS[4], 'failed'
end
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('ZADD', list, now, ARGV[1])
local old = redis.call('ZRANGE', list, 0, -1 - ARGV[6])
for _, id in ipairs(old) do redis.call('DEL', 'aii:hooks:delivery:' .. id) end
redis.call('ZREMRANGEBYRANK', list, 0, -1 - ARGV[6])
redis.call('EXPIRE', KEYS[1], ARGV[7])
return said
"""
)

# KEYS delivery, pending, done, failed; ARGV id.  Returns 1 when it is pending again.
_RESEND: Final = (
    NOW
    + """
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
redis.call('PERSIST', KEYS[1])
redis.call('HSET', KEYS[1], 'attempts', 0, 'first_ms', now)
for i = 3, 4 do redis.call('ZREM', KEYS[i], ARGV[1]) end
redis.call('ZADD', KEYS[2], now, ARGV[1])
return 1
"""
)


@dataclass(frozen=True)
class Delivery:
    """One event for one hook.

    Attributes:
        event: the CloudEvent as JSON, word for word the same at every try.
        answer: what came of the last try: a status of HTTP, or an error's name; "" before the first.
    """

    delivery_id: str
    hook_id: str
    event: str
    attempts: int
    answer: str

    @property
    def event_id(self) -> str:
        return self.delivery_id.partition(":")[2]


class Deliveries:
    """Thread-safe, and shared by all processes that deliver; raises RedisUnavailable."""

    def __init__(self, client: RedisClient) -> None:
        self._client = client
        self._fan_out = client.register_script(_FAN_OUT)
        self._claim = client.register_script(_CLAIM)
        self._note = client.register_script(_NOTE)
        self._resend = client.register_script(_RESEND)

    def open(self) -> None:
        """Begin to read the outbox, from its beginning, if no process has yet."""
        try:
            self._client.xgroup_create(_OUTBOX, _GROUP, id="0", mkstream=True)
        except redis.ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise

    def take(self, consumer: str, hooks: Sequence[Hook], most: int, wait_ms: int) -> int:
        """Make deliveries of what is in the outbox; returns of how many events. While very many are pending, the outbox
        keeps the newest events."""
        if self._client.zcard(_PENDING) >= _MOST_PENDING:
            return 0
        left = self._client.xautoclaim(_OUTBOX, _GROUP, consumer, _CLAIM_MS, count=most)[1]
        answer = self._client.xreadgroup(_GROUP, consumer, {_OUTBOX: ">"}, count=most, block=None if left else wait_ms)
        rows = [*left, *(answer[0][1] if answer else [])]
        for entry, fields in rows:
            self._spread(entry, fields or {}, hooks)
        return len(rows)

    def _spread(self, entry: str, fields: Mapping[str, str], hooks: Sequence[Hook]) -> None:
        args = [_GROUP, entry]
        for hook in hooks if "id" in fields else ():
            if hook.wants(fields["state"]):
                args += [f"{hook.hook_id}:{fields['id']}", hook.hook_id, json.dumps(_cloud_event(entry, fields))]
        self._fan_out(keys=[_PENDING, _OUTBOX], args=args)

    def due(self, most: int) -> list[Delivery]:
        """Deliveries to be tried now. They are the caller's for a minute, and then due again."""
        found = [self.get(str(delivery_id)) for delivery_id in self._claim(keys=[_PENDING], args=[most, _CLAIM_MS])]
        return [delivery for delivery in found if delivery]

    def note(self, delivery: Delivery, delivered: bool, answer: str) -> str:
        """Note what came of a try: `done`; `later`, after a pause that doubles each time; `failed`, when that would
        be more than a day after the first try; or `gone`."""
        pause_ms = min(_FIRST_PAUSE_MS * 2 ** min(delivery.attempts, 20), _LONGEST_PAUSE_MS)
        pause_ms = int(pause_ms * random.uniform(0.5, 1.5))
        args = [delivery.delivery_id, "1" if delivered else "", answer, pause_ms, _GIVE_UP_MS, _KEPT, _KEEP_S]
        return str(self._note(keys=self._keys(delivery.delivery_id), args=args))

    def get(self, delivery_id: str) -> Delivery | None:
        """None for one that was forgotten."""
        fields = self._client.hgetall(_key(delivery_id))
        if not fields:
            self._client.zrem(_PENDING, delivery_id)
            return None
        return Delivery(delivery_id, fields["hook"], fields["event"], int(fields["attempts"]), fields.get("answer", ""))

    def counts(self) -> dict[str, int]:
        """How many deliveries are pending, done and failed, of those that are kept."""
        pipe = self._client.pipeline(transaction=True)
        pipe.zcard(_PENDING).zcard(_list("done")).zcard(_list("failed"))
        return dict(zip(("pending", "done", "failed"), pipe.execute(), strict=True))

    def listed(self, which: Literal["pending"] | Kept, most: int) -> list[Delivery]:
        """Pending ones by when they are tried next, the others newest first."""
        if which == "pending":
            ids = self._client.zrange(_PENDING, 0, most - 1)
        else:
            ids = self._client.zrevrange(_list(which), 0, most - 1)
        return [delivery for delivery in map(self.get, ids) if delivery]

    def resend(self, delivery_id: str) -> None:
        """Deliver once more, from now on for a day; raises NotFound."""
        if not self._resend(keys=self._keys(delivery_id), args=[delivery_id]):
            raise NotFound(f"There is no delivery {delivery_id}: `aii hooks list --deliveries failed` names them.")

    def drop(self, delivery: Delivery) -> None:
        """Forget one, whose hook was removed."""
        self._client.pipeline(transaction=True).zrem(_PENDING, delivery.delivery_id).delete(
            _key(delivery.delivery_id)
        ).execute()

    def _keys(self, delivery_id: str) -> list[str]:
        return [_key(delivery_id), _PENDING, _list("done"), _list("failed")]


def _key(delivery_id: str) -> str:
    return f"aii:hooks:delivery:{delivery_id}"


def _list(which: Kept) -> str:
    return f"aii:hooks:{which}"


def _cloud_event(entry: str, fields: Mapping[str, str]) -> dict[str, Any]:
    """The event as everyone reads it from `aii:events`, and the job's id beside that."""
    event = JobEvent(
        entry=entry,
        event_id=fields["id"],
        source="/aii/ledger",
        type=f"aii.job.{fields['state']}",
        subject=fields["id"].partition("-")[0],
        state=JobState(fields["state"]),
        task=fields["task"],
        document=int(fields["document"]),
        place=0,
        error_code=fields["error_code"],
    ).cloud_event()
    event["data"]["job_id"] = fields["job"]
    return event
