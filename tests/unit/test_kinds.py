"""The table of the kinds of jobs."""

from __future__ import annotations

from typing import get_args

from tasks.kinds import KINDS, QUEUE_OF_TASK
from tasks.messages import Request
from tasks.names import QUEUES
from tasks.results import FailureResult, Result, Verification
from tasks.stages import Stage


def test_the_table_holds_every_message_and_every_result_once() -> None:
    assert sorted(k.request.__name__ for k in KINDS) == sorted(r.__name__ for r in Request.__subclasses__())
    assert {k.result for k in KINDS} == {*get_args(Result)} - {FailureResult}
    assert len(QUEUE_OF_TASK) == len(KINDS)


def test_a_kind_s_message_and_result_name_the_same_task_and_a_queue_that_workers_serve() -> None:
    for kind in KINDS:
        assert kind.result.model_fields["task"].default == kind.task
        assert kind.queue in QUEUES


def test_a_job_ends_with_a_status_of_its_own_or_fails() -> None:
    statuses = {kind.title: kind.statuses for kind in KINDS}
    assert statuses["activate"] == ("activated", "passive", "failed")
    assert statuses["query"] == ("answered", "failed")


def test_stages_that_are_shown_are_stages_that_are_timed() -> None:
    assert {stage for kind in KINDS for stage in kind.stages} <= {*get_args(Stage)}


def test_documents_keep_the_old_name_of_the_loss_and_are_read_by_both() -> None:
    written = {
        "verified": True, "on_code": True, "attempts": 1, "steps": 10, "distance_before": 1.0, "distance_after": 0.5,
        "misfit_before": 0.75, "misfit_after": 0.25,
    }  # fmt: skip
    read = Verification.model_validate(written)
    assert (read.loss_before, read.loss_after) == (0.75, 0.25)
    assert read.model_dump(mode="json") == written
    assert Verification.model_validate_json(read.model_dump_json()) == read
