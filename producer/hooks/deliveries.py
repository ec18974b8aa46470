"""Deliveries: one for each event and hook.

    pending ──delivered──▶ done          each is known by {hook}:{event}
       │  ▲
       └──┴─failed─────▶ given up        after a day, or at once when very many are pending for the hook

Keys:
    aii:hooks:outbox           stream that workers write: the ends of jobs, bounded
    aii:hooks:delivery:{id}    hash: hook, event (JSON), attempts, first_ms, last_ms, answer
    aii:hooks:pending:{hook}   sorted set of a hook's deliveries by the time (ms) at which they are tried next
    aii:hooks:done, :failed    sorted sets by time (ms): the last 10,000 of each, which can be sent again
"""

from __future__ import annotations

import heapq
import json
import logging
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import redis

from producer.hooks.registry import HOOKS, Hook, pending_key
from tasks.connection import RedisClient
from tasks.errors import NotFound
from tasks.ledger.dead_letters import DeadLetters
from tasks.ledger.events import JobEvent
from tasks.ledger.scripts import NOW
from tasks.ledger.states import JobState

__all__ = ["Deliveries", "Delivery", "Kept"]

logger = logging.getLogger(__name__)

_OUTBOX: Final = "aii:hooks:outbox"
_GROUP: Final = "deliver"
_MOST_PENDING: Final = 100_000
_KEPT: Final = 10_000
_KEEP_S: Final = 7 * 86_400
_FIRST_PAUSE_MS: Final = 1_000
_LONGEST_PAUSE_MS: Final = 3_600_000
_GIVE_UP_MS: Final = 86_400_000
_GONE: Final = "410"  # by which a receiver says that it wants no more (Standard Webhooks, "Deliverability")
# Longer than one try takes: what a killed process was at is tried again then.
_CLAIM_MS: Final = 60_000

Kept = Literal["done", "failed"]

# Keep an ended delivery as one of the last `most` of a list, for a while.
_KEEP: Final = """
local function keep(list, id, most, keep_s)
  redis.call('ZADD', list, now, id)
  local old = redis.call('ZRANGE', list, 0, -1 - most)
  for _, one in ipairs(old) do redis.call('DEL', 'aii:hooks:delivery:' .. one) end
  redis.call('ZREMRANGEBYRANK', list, 0, -1 - most)
  redis.call('EXPIRE', 'aii:hooks:delivery:' .. id, keep_s)
end
"""

# KEYS outbox, hooks, failed; ARGV group, entry, most_pending, kept, keep_s, then delivery, hook, event for each.
# An entry leaves the outbox only with its deliveries; one that there is already is not made again.
_FAN_OUT: Final = (
    NOW
    + _KEEP
    + """
for i = 6, #ARGV, 3 do
  local id, hook = ARGV[i], ARGV[i + 1]
  local key, pending = 'aii:hooks:delivery:' .. id, 'aii:hooks:pending:' .. hook
  if redis.call('EXISTS', key) == 0 and redis.call('HEXISTS', KEYS[2], hook) == 1 then
    redis.call('HSET', key, 'hook', hook, 'event', ARGV[i + 2], 'attempts', 0, 'first_ms', now)
    if redis.call('ZCARD', pending) < tonumber(ARGV[3]) then
      redis.call('ZADD', pending, now, id)
    else
      redis.call('HSET', key, 'answer', 'too many pending')
      keep(KEYS[3], id, ARGV[4], ARGV[5])
    end
  end
end
redis.call('XACK', KEYS[1], ARGV[1], ARGV[2])
redis.call('XDEL', KEYS[1], ARGV[2])
"""
)

# KEYS pending, one for each hook; ARGV claim_ms, then the most for each.
# Returns deliveries that are due, which are the caller's until the claim is over.
_CLAIM: Final = (
    NOW
    + """
local due = {}
for i, key in ipairs(KEYS) do
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', key, '-inf', now, 'LIMIT', 0, ARGV[i + 1])) do
    redis.call('ZADD', key, now + ARGV[1], id)
    due[#due + 1] = id
  end
end
return due
"""
)

# KEYS delivery, pending, done, failed; ARGV id, '1' if delivered, answer, pause_ms, give_up_ms, kept, keep_s.
# Returns what became of it.
_NOTE: Final = (
    NOW
    + _KEEP
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
keep(list, ARGV[1], ARGV[6], ARGV[7])
return said
"""
)

# KEYS delivery, pending, done, failed, hooks; ARGV id, hook.  Returns 1 when it is pending again.
_RESEND: Final = (
    NOW
    + """
if redis.call('EXISTS', KEYS[1]) == 0 or redis.call('HEXISTS', KEYS[5], ARGV[2]) == 0 then return 0 end
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
    """Thread-safe, and shared by all processes that deliver; raises RedisUnavailable. A record that no sense can be
    made of becomes a dead letter.
    """

    def __init__(self, client: RedisClient) -> None:
        self._client = client
        self._dead = DeadLetters(client, "aii hooks")
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
        """Make deliveries of what is in the outbox; returns of how many events."""
        left = self._client.xautoclaim(_OUTBOX, _GROUP, consumer, _CLAIM_MS, count=most)[1]
        answer = self._client.xreadgroup(_GROUP, consumer, {_OUTBOX: ">"}, count=most, block=None if left else wait_ms)
        rows = [*left, *(answer[0][1] if answer else [])]
        for entry, fields in rows:
            self._spread(entry, fields or {}, hooks)
        return len(rows)

    def _spread(self, entry: str, fields: Mapping[str, str], hooks: Sequence[Hook]) -> None:
        args = [_GROUP, entry, _MOST_PENDING, _KEPT, _KEEP_S]
        try:
            event = json.dumps(_cloud_event(entry, fields)) if fields else ""  # without: trimmed since
            for hook in hooks if fields else ():
                if hook.wants(fields["state"]):
                    args += [f"{hook.hook_id}:{fields['id']}", hook.hook_id, event]
        except (KeyError, ValueError) as error:
            self._set_aside(f"an entry of the outbox cannot be read: {error!r}", dict(fields))
        self._fan_out(keys=[_OUTBOX, HOOKS, _list("failed")], args=args)

    def due(self, most: Mapping[str, int]) -> list[Delivery]:
        """Deliveries to be tried now, so many at most for each hook. They are the caller's for a minute, and then due
        again."""
        if not most:
            return []
        claimed = self._claim(keys=[pending_key(hook_id) for hook_id in most], args=[_CLAIM_MS, *most.values()])
        return [delivery for delivery in map(self.get, claimed) if delivery]

    def note(self, delivery: Delivery, delivered: bool, answer: str) -> str:
        """Note what came of a try: `done`; `later`, after a pause that doubles each time; `failed`, when that would
        be more than a day after the first try, or at once when the receiver has gone; or `gone`."""
        pause_ms = min(_FIRST_PAUSE_MS * 2 ** min(delivery.attempts, 20), _LONGEST_PAUSE_MS)
        pause_ms = int(pause_ms * random.uniform(0.5, 1.5))
        give_up_ms = 0 if answer == _GONE else _GIVE_UP_MS
        args = [delivery.delivery_id, "1" if delivered else "", answer, pause_ms, give_up_ms, _KEPT, _KEEP_S]
        return str(self._note(keys=_keys(delivery.delivery_id), args=args))

    def get(self, delivery_id: str) -> Delivery | None:
        """None for one that was forgotten, or set aside."""
        fields: dict[str, str] = {}
        try:
            fields = self._client.hgetall(_key(delivery_id))
            attempts, answer = int(fields["attempts"]), fields.get("answer", "")
            fields["event"].encode()  # UnicodeEncodeError, a ValueError, where it is no UTF-8
            return Delivery(delivery_id, _hook_of(delivery_id), fields["event"], attempts, answer)
        except (KeyError, ValueError, redis.ResponseError) as error:
            if fields or isinstance(error, redis.ResponseError):  # without: expired
                self._set_aside(f"the delivery {delivery_id!r} cannot be read: {error!r}", fields)
            self._forget(delivery_id)
            return None

    def counts(self) -> dict[str, int]:
        """How many deliveries are pending, done and failed, of those that are kept."""
        pipe = self._client.pipeline(transaction=True)
        pipe.zcard(_list("done")).zcard(_list("failed"))
        for hook_id in self._client.hkeys(HOOKS):
            pipe.zcard(pending_key(hook_id))
        done, failed, *pending = pipe.execute()
        return {"pending": sum(pending), "done": done, "failed": failed}

    def listed(self, which: Literal["pending"] | Kept, most: int) -> list[Delivery]:
        """Pending ones by when they are tried next, the others newest first."""
        if which == "pending":
            keys = map(pending_key, self._client.hkeys(HOOKS))
            rows = (row for key in keys for row in self._client.zrange(key, 0, most - 1, withscores=True))
            ids = [delivery_id for delivery_id, _ in heapq.nsmallest(most, rows, key=lambda row: row[1])]
        else:
            ids = self._client.zrevrange(_list(which), 0, most - 1)
        return [delivery for delivery in map(self.get, ids) if delivery]

    def resend(self, delivery_id: str) -> None:
        """Deliver once more, from now on for a day; raises NotFound."""
        if not self._resend(keys=[*_keys(delivery_id), HOOKS], args=[delivery_id, _hook_of(delivery_id)]):
            raise NotFound(f"There is no delivery {delivery_id}: `aii hooks list --deliveries failed` names them.")

    def _forget(self, delivery_id: str) -> None:
        pipe = self._client.pipeline(transaction=True)
        for key in _keys(delivery_id)[1:]:
            pipe.zrem(key, delivery_id)
        pipe.delete(_key(delivery_id)).execute()

    def _set_aside(self, reason: str, fields: Mapping[str, str]) -> None:
        logger.warning("Set aside: %s. See `aii jobs dead`.", reason)
        self._dead.add("hooks", reason, json.dumps(fields).encode())


def _keys(delivery_id: str) -> list[str]:
    return [_key(delivery_id), pending_key(_hook_of(delivery_id)), _list("done"), _list("failed")]


def _hook_of(delivery_id: str) -> str:
    return delivery_id.partition(":")[0]


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
