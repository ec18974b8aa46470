"""Asking the other shards: a message for each in a Redis list of its own, which any of its workers takes.

These are no jobs. A job must not be lost, has a place in the ledger and a document in S3; a question is worth nothing
after a second, when its query is answered without. So Celery does not carry it: it would take some milliseconds, and
bring back what was lost after an hour.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Sequence
from itertools import chain
from typing import Final

from pydantic import ValidationError
from redis.commands.core import Script

from tasks.connection import RedisClient
from tasks.errors import InvalidRequest
from tasks.shards import Shard
from workers.index.codec.codec import Codes
from workers.index.codec.stack import Found
from workers.index.collection.finder import OtherGeneration, Pending, Scope, Sought
from workers.index.shards.messages import Answer, Place, Question, answer_key, question_key, taken_key

__all__ = ["ShardPeers"]

logger = logging.getLogger(__name__)

_MOST_WAITING: Final = 10_000
_QUEUE_LIFE_S: Final = 60
_LEAST_S: Final = 0.01  # that Redis can wait; 0 is for ever

# Puts a question's number into the lists of shards, and, the first time, what is asked beside it. The worker that took
# it the first time may have died: KEYS question, then for each shard its list and who has taken it; ARGV number,
# question or nothing, milliseconds that it lives, numbers that a list holds, seconds that it lives.
_SEND = """
if ARGV[2] ~= '' then redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3]) end
for shard = 2, #KEYS, 2 do
  if ARGV[2] == '' then redis.call('DEL', KEYS[shard + 1]) end
  redis.call('RPUSH', KEYS[shard], ARGV[1])
  redis.call('LTRIM', KEYS[shard], -ARGV[4], -1)
  redis.call('EXPIRE', KEYS[shard], ARGV[5])
end
"""


class ShardPeers:
    """The other shards. Thread-safe.

    Args:
        shard: this worker's.
        wait_s: how long their answers are waited for.
        again_s: after how long another worker of a shard is asked, as the first may have died with the question; half
            of that by default.
    """

    def __init__(self, client: RedisClient, shard: Shard, wait_s: float, again_s: float | None = None) -> None:
        self._client = client
        self._sender = client.register_script(_SEND)
        self.shard = shard
        self._waits_s = (wait_s / 2 if again_s is None else again_s, wait_s)

    def ask(self, scope: Scope, sought: Sequence[Sought], shards: Sequence[Shard]) -> Pending:
        """See :class:`workers.index.collection.finder.Peers`."""
        return _Asked(self._client, self._sender, scope, Question.of(scope, sought), shards, self._waits_s)

    def code_at(self, scope: Scope, number: int, position: int) -> Codes | None:
        """See :class:`workers.index.collection.finder.Peers`."""
        others = [shard for shard in self.shard.all if shard != self.shard]
        question = Question.of(scope, [], Place(number=number, position=position))
        asked = _Asked(self._client, self._sender, scope, question, others, self._waits_s)
        asked.answers()
        return asked.code


class _Asked:
    """One question, sent when it is made."""

    def __init__(
        self,
        client: RedisClient,
        sender: Script,
        scope: Scope,
        question: Question,
        shards: Sequence[Shard],
        waits_s: tuple[float, float],
    ) -> None:
        self._client = client
        self._sender = sender
        self._scope = scope
        self._parts = len(question.parts)
        self._again_s, self._wait_s = waits_s
        self._number = uuid.uuid4().hex
        self._waiting = {shard.number: shard for shard in shards}
        self._asked = tuple(self._waiting)
        self._silent: list[Shard] = []
        self._found: list[list[Found]] = []
        self.code: Codes | None = None
        self._began = time.monotonic()
        self._send(question.model_dump_json(exclude_defaults=True))

    def answers(self) -> tuple[list[list[Found]], list[Shard]]:
        """See :class:`workers.index.collection.finder.Pending`."""
        try:
            self._collect(self._began + self._again_s)
            self._send()
            self._collect(self._began + self._wait_s)
        finally:
            self._forget()
        if self._waiting:
            logger.warning("No answer of shard %s in %.3g s", ", ".join(map(str, self._waiting.values())), self._wait_s)
        return self._found, [*self._silent, *self._waiting.values()]

    def _send(self, question: str = "") -> None:
        """To all shards that have not answered; the second time, what is asked is in Redis already."""
        if not self._waiting:
            return
        shards = ((shard.queue, taken_key(self._number, shard.number)) for shard in self._waiting.values())
        self._sender(
            keys=[question_key(self._number), *chain.from_iterable(shards)],
            args=[self._number, question, int(1000 * self._wait_s) + 1, _MOST_WAITING, _QUEUE_LIFE_S],
        )

    def _forget(self) -> None:
        """So that a worker that takes the question from now on does not search for no one."""
        if self._asked:
            taken = [taken_key(self._number, shard) for shard in self._asked]
            self._client.delete(question_key(self._number), answer_key(self._number), *taken)

    def _collect(self, until: float) -> None:
        """Take answers until a moment; when it is over already, those that are there: they came in time, while this
        worker was searching its own cells."""
        while self._waiting:
            left_s = until - time.monotonic()
            some = len(self._waiting)
            popped = self._client.blmpop(
                max(left_s, _LEAST_S), 1, answer_key(self._number), direction="LEFT", count=some
            )
            if popped:
                for text in popped[1]:
                    self._take(text)
            elif left_s <= _LEAST_S:
                return

    def _take(self, text: str) -> None:
        """Note an answer; one that cannot be used is that of a shard that does not answer."""
        try:
            answer = Answer.model_validate_json(text)
            found, code = answer.arrays(), answer.code_bytes
        except (ValidationError, InvalidRequest) as error:
            logger.warning("An answer of another shard cannot be read: %s", error)
            return
        shard = self._waiting.pop(answer.shard, None)
        if shard is None:  # the second one of a shard that was asked twice
            return
        if answer.pointer == self._scope.pointer and len(found) == self._parts:
            self._found.append(found)
            self.code = self.code if code is None else code
            if self.code is not None and not self._parts:  # which is all that was asked for, and one shard's
                self._waiting.clear()
        elif self._scope.strict and answer.pointer != self._scope.pointer:
            raise OtherGeneration
        else:
            logger.warning("Shard %s has generation %d, not the one asked for", shard, answer.pointer.generation)
            self._silent.append(shard)
