"""Answering the other shards' questions, with what is in this shard's cells."""

from __future__ import annotations

import logging
import time

from pydantic import ValidationError

from tasks.connection import RedisClient
from tasks.errors import AiiError, Unavailable
from tasks.shards import Shard
from workers.index.collection.open_collections import OpenCollections
from workers.index.shards.messages import Answer, Question, answer_key, question_key, taken_key

__all__ = ["ShardServer"]

logger = logging.getLogger(__name__)

_POLL_S = 0.5
_PAUSE_S = 0.5
_ANSWER_LIFE_S = 60


class ShardServer:
    """Takes one question after the other; several threads may."""

    def __init__(self, client: RedisClient, collections: OpenCollections, shard: Shard) -> None:
        self._client = client
        self._collections = collections
        self._shard = shard

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
        text = self._client.get(question_key(number))
        taken = taken_key(number, self._shard.number)
        if text is None or not self._client.set(taken, 1, nx=True, ex=_ANSWER_LIFE_S):
            return
        answer = self._answer(Question.model_validate_json(text))
        pipe = self._client.pipeline(transaction=False)
        pipe.rpush(answer_key(number), answer.model_dump_json())
        pipe.expire(answer_key(number), _ANSWER_LIFE_S)
        pipe.execute()

    def _answer(self, question: Question) -> Answer:
        sought = [part.sought() for part in question.parts]
        pointer, found = self._collections.get(question.collection).find(question.pointer, sought, self._shard)
        return Answer.of(self._shard.number, pointer, found)
