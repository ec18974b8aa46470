"""Starting, restarting, stopping; with tiny processes of no further use."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from deploy.local.services import Service
from deploy.local.supervisor import Backoff, Interrupted, Supervisor, describe_exit, tail
from tasks.errors import Unavailable
from tests.waiting import wait_for

DEADLINE_S = 30.0
SLEEP = "import time; time.sleep(600)"


def service(
    code: str, probe: Callable[[int], None], start_timeout_s: float = DEADLINE_S, stop_timeout_s: float = DEADLINE_S
) -> Service:
    return Service("toy", (sys.executable, "-c", code), os.environ, probe, start_timeout_s, stop_timeout_s)


def refuse(pid: int = 0) -> None:
    raise Unavailable("no answer")


def exists(path: Path) -> Callable[[int], None]:
    """A probe that answers once the process has written a file."""

    def probe(pid: int) -> None:
        if not path.exists():
            refuse()

    return probe


@contextmanager
def interrupting(supervisor: Supervisor, act: Callable[[], None]) -> Iterator[None]:
    """Do `act` in another thread, then interrupt the supervisor, also when `act` fails; its failure is raised here."""

    def run() -> None:
        try:
            act()
        finally:
            supervisor.interrupt()

    with ThreadPoolExecutor(1) as threads:
        done = threads.submit(run)
        yield
        done.result()


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def supervisor(tmp_path: Path, said: list[str]) -> Iterator[Supervisor]:
    supervisor = Supervisor(tmp_path / "logs", said.append)
    yield supervisor
    supervisor.stop()


def test_a_service_is_in_a_group_of_its_own_and_in_our_session(supervisor: Supervisor, tmp_path: Path) -> None:
    """Ctrl-C reaches the group in front; priorities count among the processes of one session (sched(7))."""
    told = tmp_path / "told"
    code = (
        f"import os, pathlib; p = pathlib.Path({str(told)!r}); t = p.with_suffix('.new');"
        f"t.write_text(f'{{os.getpid()}} {{os.getpgid(0)}} {{os.getsid(0)}}'); t.rename(p); {SLEEP}"
    )
    supervisor.start(service(code, exists(told)))
    pid, group, session = map(int, told.read_text().split())
    assert (group, session) == (pid, os.getsid(0))


def test_restarts_wait_longer_each_time_up_to_a_limit() -> None:
    backoff = Backoff()
    assert [backoff.after(ran_s=0) for _ in range(7)] == [1, 2, 4, 8, 16, 30, 30]


def test_a_minute_of_health_forgets_earlier_deaths() -> None:
    backoff = Backoff()
    delays = [backoff.after(ran_s=0), backoff.after(ran_s=0), backoff.after(ran_s=60), backoff.after(ran_s=0)]
    assert delays == [1, 2, 1, 2]


def test_a_service_that_exits_while_starting_fails_the_start_with_the_end_of_its_log(supervisor: Supervisor) -> None:
    with pytest.raises(Unavailable, match=r"(?s)toy exited with status 7.*out of luck"):
        supervisor.start(service("import sys; print('out of luck'); sys.exit(7)", refuse))


def test_an_answer_from_another_program_does_not_pass_for_a_dead_service(supervisor: Supervisor) -> None:
    def answer_after_the_death(pid: int) -> None:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)

    gone = service("", answer_after_the_death)
    with pytest.raises(Unavailable, match="toy exited with status 0"):
        supervisor.start(gone)


def test_a_service_that_stays_silent_fails_the_start_with_its_last_problem(supervisor: Supervisor) -> None:
    with pytest.raises(Unavailable, match=r"toy does not answer.*no answer"):
        supervisor.start(service(SLEEP, refuse, start_timeout_s=0))


def test_a_start_that_is_interrupted_ends(supervisor: Supervisor) -> None:
    supervisor.interrupt()
    with pytest.raises(Interrupted):
        supervisor.start(service(SLEEP, refuse))


def test_a_service_that_dies_is_started_again_and_its_log_named(
    supervisor: Supervisor, said: list[str], tmp_path: Path
) -> None:
    pids = tmp_path / "pids"
    supervisor.start(service(f"import os; print(os.getpid(), file=open({str(pids)!r}, 'a')); {SLEEP}", exists(pids)))

    def kill_and_wait_for_the_next() -> None:
        wait_for(lambda: len(pids.read_text().splitlines()) == 1)
        os.kill(int(pids.read_text()), signal.SIGKILL)
        wait_for(lambda: len(pids.read_text().splitlines()) == 2)

    with interrupting(supervisor, kill_and_wait_for_the_next):
        supervisor.watch()
    restarts = [line for line in said if "starting it again" in line]
    assert len(restarts) == 1
    assert "toy was ended by SIGKILL" in restarts[0]
    assert "toy.log" in restarts[0]


def test_a_service_that_ignores_the_request_to_stop_is_killed(
    supervisor: Supervisor, said: list[str], tmp_path: Path
) -> None:
    ready = tmp_path / "ready"
    deaf = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); open({str(ready)!r}, 'w'); {SLEEP}"
    supervisor.start(service(deaf, exists(ready), stop_timeout_s=0.1))
    supervisor.stop()
    assert [line for line in said if "toy is killed" in line]


def test_services_stop_in_the_reverse_of_the_order_in_which_they_started(
    supervisor: Supervisor, tmp_path: Path
) -> None:
    order = tmp_path / "order"
    for name in ("first", "second"):
        ready = tmp_path / name
        leave = f"def leave(*_): open({str(order)!r}, 'a').write('{name} '); raise SystemExit"
        code = f"import signal, time\n{leave}\nsignal.signal(15, leave); open({str(ready)!r}, 'w'); time.sleep(600)"
        supervisor.start(service(code, exists(ready)))
    supervisor.stop()
    assert order.read_text() == "second first "


def test_a_process_is_described_by_how_it_ended() -> None:
    assert (describe_exit(3), describe_exit(-9)) == ("exited with status 3", "was ended by SIGKILL")


def test_the_tail_of_a_log_is_its_last_twenty_lines(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("\n".join(str(number) for number in range(50)))
    assert tail(log).split() == [str(number) for number in range(30, 50)]


def test_a_large_log_is_set_aside_at_the_next_start(
    supervisor: Supervisor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deploy.local.supervisor._LOG_LIMIT", 3)
    (tmp_path / "logs" / "toy.log").write_text("old lines")
    supervisor.start(service(SLEEP, lambda pid: None))
    assert (tmp_path / "logs" / "toy.log.1").read_text() == "old lines"


def test_a_second_interrupt_kills_what_has_not_stopped(supervisor: Supervisor, tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    deaf = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); open({str(ready)!r}, 'w'); {SLEEP}"
    supervisor.start(service(deaf, exists(ready), stop_timeout_s=3600))
    supervisor.interrupt()
    supervisor.interrupt()
    supervisor.stop()  # pytest's own time limit is far shorter than an hour


WAIT_FOR_THE_OTHER = """
import os, signal, sys, time
ready, mine, other = sys.argv[1:]
def leave(*_):
    open(mine, "w").close()
    while not os.path.exists(other):
        time.sleep(0.01)
    raise SystemExit
signal.signal(signal.SIGTERM, leave)
open(ready, "w").close()
time.sleep(600)
"""


def test_services_that_started_together_are_asked_together(
    supervisor: Supervisor, said: list[str], tmp_path: Path
) -> None:
    """Each leaves only once the other was asked as well."""
    services = []
    for mine, other in (("a", "b"), ("b", "a")):
        ready = tmp_path / f"{mine}-ready"
        paths = (str(ready), str(tmp_path / mine), str(tmp_path / other))
        toy = service("", exists(ready))
        services.append(replace(toy, command=(sys.executable, "-c", WAIT_FOR_THE_OTHER, *paths)))
    supervisor.start(*services)
    supervisor.stop()
    assert not [line for line in said if "killed" in line]


def test_a_frozen_service_stops_when_asked(supervisor: Supervisor, said: list[str]) -> None:
    pids: list[int] = []
    supervisor.start(service(SLEEP, pids.append))
    os.kill(pids[0], signal.SIGSTOP)
    supervisor.stop()
    assert not [line for line in said if "killed" in line]


def test_a_probe_that_waits_for_a_silent_server_does_not_hold_up_the_stop(supervisor: Supervisor) -> None:
    silent = threading.Event()
    asked = threading.Event()

    def wait_for_ever(pid: int) -> None:
        asked.set()
        silent.wait()

    with interrupting(supervisor, lambda: wait_for(asked.is_set)), pytest.raises(Interrupted):
        supervisor.start(service(SLEEP, wait_for_ever))
    silent.set()
