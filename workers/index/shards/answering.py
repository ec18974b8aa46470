"""Answering the other shards' questions, with what is in this shard's cells."""

from __future__ import annotations

import logging
import threading
import time

from pydantic import ValidationError

from tasks.connection import RedisClient
from tasks.errors import AiiError, Unavailable
from tasks.periodic import PeriodicThread
from tasks.shards import Shard
from workers.index.collection.collection import Collection
from workers.index.collection.open_collections import OpenCollections
from workers.index.shards.messages import Answer, Question, answer_key, question_key, taken_key

__all__ = ["ShardServer"]

logger = logging.getLogger(__name__)

_POLL_S = 0.5
_PAUSE_S = 0.5
_LEFT_TO_OTHERS_S = 0.02
_ANSWER_LIFE_S = 60

# The question, if it is still asked and no other worker of the shard has taken it: KEYS question, taken; ARGV seconds.
_TAKE = """
local question = redis.call('GET', KEYS[1])
if question and redis.call('SET', KEYS[2], 1, 'NX', 'EX', ARGV[1]) then return question end
return nil
"""


class ShardServer:
    """Takes one question after the other; several threads may. None of them opens a collection, which may have to be
    downloaded: questions about one that is not open stay in the shard's queue, for workers that have it open."""

    def __init__(self, client: RedisClient, collections: OpenCollections, shard: Shard) -> None:
        self._client = client
        self._collections = collections
        self._shard = shard
        self._take = client.register_script(_TAKE)
        self._opening: set[str] = set()
        self._lock = threading.Lock()

    def threads(self, count: int) -> list[PeriodicThread]:
        """So many questions are answered at a time."""
        return [PeriodicThread(f"shard-{number}", 0.0, self.serve_once) for number in range(1, count + 1)]

    def serve_once(self) -> None:
        """Wait for a question, for a moment at most, and answer it, unless no one waits for that any more or another
        worker of the shard is at it."""
        try:
            popped = self._client.blpop([self._shard.queue], timeout=_POLL_S)
        except Exception:
            time.sleep(_PAUSE_S)  # the caller logs it, and comes again at once
            raise
        if popped:
            self._try_to_serve(popped[1])

    def _try_to_serve(self, number: str) -> None:
        try:
            self._serve(number)
        except Unavailable:
            time.sleep(_PAUSE_S)
            raise
        except (ValidationError, AiiError) as error:
            logger.warning("A question of another shard cannot be answered: %s", error)

    def _serve(self, number: str) -> None:
        text = self._take(keys=[question_key(number), taken_key(number, self._shard.number)], args=[_ANSWER_LIFE_S])
        if text is None:
            return
        question = Question.model_validate_json(text)
        collection = self._collections.if_open(question.collection)
        if collection is None:
            self._give_back(number)
            self._start_opening(question.collection)
            time.sleep(_LEFT_TO_OTHERS_S)
            return
        answer = self._answer(collection, question)
        pipe = self._client.pipeline(transaction=False)
        pipe.rpush(answer_key(number), answer.model_dump_json(exclude_defaults=True))
        pipe.expire(answer_key(number), _ANSWER_LIFE_S)
        pipe.execute()

    def _answer(self, collection: Collection, question: Question) -> Answer:
        pointer, found = collection.find(question.pointer, question.sought, self._shard)
        place = question.place
        code = collection.code_at(question.pointer, place.number, place.position) if place else None
        return Answer.of(self._shard.number, pointer, found, code)

    def _give_back(self, number: str) -> None:
        """Leave a question to the shard's other workers; it comes back until it is answered, or no one waits for it."""
        pipe = self._client.pipeline()
        pipe.delete(taken_key(number, self._shard.number))
        pipe.rpush(self._shard.queue, number)
        pipe.execute()

    def _start_opening(self, collection: str) -> None:
        with self._lock:
            if collection in self._opening:
                return
            self._opening.add(collection)
        try:
            threading.Thread(target=self._open, args=(collection,), name=f"open-{collection}", daemon=True).start()
        except RuntimeError:  # the host has no thread left
            self._opening.discard(collection)
            raise

    def _open(self, collection: str) -> None:
        try:
            self._collections.get(collection)
        except AiiError as error:
            logger.warning("Collection %s cannot be opened, which another shard asks about: %s", collection, error)
            time.sleep(_PAUSE_S)  # the question comes back at once, and would have it tried again
        finally:
            self._opening.discard(collection)
