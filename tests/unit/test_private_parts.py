"""The undocumented parts of Celery, kombu and Flower that we lean on are as we know them.

pyproject.toml bounds the three from above for their sake. When one of these tests fails with a new version, read
workers/delivery/lanes.py or deploy/flower/install.py beside that version before the bound is moved.
"""

from __future__ import annotations

import hashlib
import inspect
import re
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest
from celery import Celery
from celery.events import EventDispatcher
from celery.worker import WorkController, control, loops, pidbox, state
from celery.worker.consumer import Consumer
from celery.worker.consumer.gossip import Gossip
from celery.worker.consumer.mingle import Mingle
from kombu import Connection
from kombu.transport.redis import Channel, Transport
from kombu.transport.virtual.base import QoS

PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"


def test_the_loop_is_given_its_consumer_its_connection_and_its_tasks_first() -> None:
    consumer = SimpleNamespace(**dict.fromkeys(("blueprint", "hub", "qos", "amqheartbeat", "amqheartbeat_rate")))
    consumer.connection, consumer.task_consumer, consumer.app = "connection", "tasks", SimpleNamespace(clock=None)
    assert Consumer.loop_args(consumer)[:3] == (consumer, "connection", "tasks")


def test_the_loop_waits_by_draining_events_for_a_time_and_ends_by_the_shared_state() -> None:
    source = inspect.getsource(loops.synloop)
    assert "connection.drain_events(timeout=" in source
    assert "state.maybe_shutdown()" in source
    assert state.should_stop is None
    assert "should_stop" in inspect.getsource(state.maybe_shutdown)


def test_a_lost_connection_is_given_up_in_a_method_of_its_own() -> None:
    assert list(inspect.signature(Consumer.on_connection_error_after_connected).parameters) == ["self", "exc"]


def test_the_end_of_a_job_is_told_by_a_method_of_its_own() -> None:
    assert "call_soon_ack," in inspect.getsource(Consumer.create_task_handler)


def test_a_lanes_options_are_known() -> None:
    known = {
        *inspect.signature(WorkController.__init__).parameters,
        *inspect.signature(WorkController.setup_defaults).parameters,
        *inspect.signature(WorkController.setup_instance).parameters,
        *inspect.signature(Gossip.__init__).parameters,
        *inspect.signature(Mingle.__init__).parameters,
    }
    wanted = {"hostname", "pool_cls", "concurrency", "queues", "task_events", "without_gossip", "without_mingle"}
    assert wanted | {"use_eventloop", "ready_callback"} <= known
    assert "consumer_cls" in inspect.getsource(WorkController)


def test_events_are_buffered_by_group_and_flushed_by_hand() -> None:
    dispatcher = EventDispatcher(enabled=False, buffer_group=frozenset({"task"}), buffer_limit=1)
    assert (dispatcher.buffer_group, dispatcher.buffer_limit) == (frozenset({"task"}), 1)
    assert callable(dispatcher.flush)


def test_what_a_channel_may_still_take_is_known() -> None:
    qos = QoS(SimpleNamespace(do_restore=False), prefetch_count=3)
    assert (qos.prefetch_count, qos.can_consume_max_estimate()) == (3, 3)


def test_the_signal_to_stop_is_told_before_the_worker_stops() -> None:
    from celery.apps import worker as program  # noqa: PLC0415  # of the command line, which other tests do not load

    assert "signals.worker_shutting_down.send" in inspect.getsource(program)


def test_flowers_last_route_is_its_catch_all_and_its_navigation_ends_as_we_know_it() -> None:
    pytest.importorskip("flower")
    import flower.urls  # noqa: PLC0415  # an extra
    import flower.views  # noqa: PLC0415  # as above

    from deploy.flower.install import _LAST_TAB  # noqa: PLC0415  # as above

    assert flower.urls.handlers[-1][0] == r".*"
    assert {"create_template_loader", "set_default_headers"} <= set(dir(flower.views.BaseHandler))
    navigation = Path(flower.views.__file__).parents[1] / "templates" / "navbar.html"
    assert navigation.read_text().count(_LAST_TAB) == 1


def test_the_bounds_stand_in_the_project_file() -> None:
    project = tomllib.loads(PYPROJECT.read_text())["project"]
    listed = [*project["dependencies"], *project["optional-dependencies"]["monitor"]]
    bounded = [text for text in listed if re.match(r"(celery|kombu|flower)\b", text)]
    assert len(bounded) == 3
    assert all("," in text for text in bounded), bounded


def test_the_method_of_kombu_that_reads_a_queue_is_the_one_that_ours_was_made_from() -> None:
    source = inspect.getsource(Channel._brpop_read)
    assert hashlib.sha256(source.encode()).hexdigest()[:16] == "c42518699709f2df", source
    assert list(inspect.signature(Channel._receive_one).parameters) == ["self", "c"]


def test_the_transport_and_the_handler_of_messages_can_be_put_in_the_place_of_celerys() -> None:
    assert list(inspect.signature(Connection.get_transport_cls).parameters) == ["self"]
    assert "self.amqp.Connection(" in inspect.getsource(Celery._connection)
    assert "promise" in inspect.signature(Consumer.create_task_handler).parameters
    assert "on_task_received = obj.create_task_handler()" in inspect.getsource(loops.synloop)


def test_the_last_of_kombus_connection_errors_is_the_one_that_is_no_error_of_a_connection() -> None:
    assert Transport.connection_errors[-1] is KeyError


def test_a_wait_for_messages_asks_the_queues_that_the_channels_cycle_gives() -> None:
    source = inspect.getsource(Channel._brpop_start)
    assert "self._queue_cycle.consume(len(self.active_queues))" in source
    assert "self._in_poll = self.client.connection" in source
    assert "self._queue_cycle.update(self.active_queues)" in inspect.getsource(Channel._update_queue_cycle)
    assert "self._quick_append = self._delivered.__setitem__" in inspect.getsource(QoS.__init__)
    assert "self._quick_ack = self._dirty.add" in inspect.getsource(QoS.__init__)


def test_the_commands_of_the_remote_control_are_looked_up_in_one_registry() -> None:
    assert "handlers=control.Panel.data" in inspect.getsource(pidbox.Pidbox.__init__)
    assert list(inspect.signature(control.revoke).parameters) == ["state", "task_id", "terminate", "signal", "kwargs"]
