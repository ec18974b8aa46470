"""A collection whose files are damaged, whose compaction is killed or has no space, or is replaced under queries."""

from __future__ import annotations

import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from tasks.connection import connect_redis
from tasks.errors import AiiError
from tasks.messages import CompactRequest
from tasks.storage import Bucket
from tests.collections import Place, add, found, unit_vectors
from tests.faults.bench import Bench, Outcome
from tests.faults.fleet import Fault
from tests.forked import forkserver
from workers.index.collection.journal import Journal
from workers.index.maintenance.starter import read_codes

NEW = unit_vectors(128, 1)


def damaged(bench: Bench, rounds: int) -> Outcome:
    """A flipped byte in each file of a generation: refused where it is opened anew, harmless where it is open."""
    wrong: list[str] = []
    asked = 0
    for i in range(rounds):
        place = _place(bench)
        writer = place.open()
        add(writer, "new-0", NEW[0])
        manifest = place.compact()
        part = manifest.segments[-1]
        keys = [f"{place.name}/objects/{digest}" for digest in (part.index, part.assets, part.meta, manifest.codec)]
        keys += [f"{place.name}/current.json", _newest_manifest(place)]
        for key in keys:
            asked += 2
            whole = place.store.get(Bucket.COLLECTIONS, key, 1 << 30)
            place.store.put(Bucket.COLLECTIONS, key, _flipped(whole, i), "application/octet-stream")
            wrong += _opened_although_damaged(bench, place, key)
            if found(writer, NEW[0], k=1) != ["new-0"]:
                wrong.append(f"after damage to {key} the open generation answers otherwise")
            place.store.put(Bucket.COLLECTIONS, key, whole, "application/octet-stream")
        place.close()
    return Outcome(answers=asked, wrong=wrong)


def killed_compaction(bench: Bench, kills: int) -> Outcome:
    """`kill -9` of a compaction at random moments: the old generation answers, or the new one, never a wrong one."""
    place = _place(bench)
    moments = random.Random(0)
    longest_s = _duration_of_a_compaction(place)
    writer, follower = place.open(), place.open()
    wrong: list[str] = []
    for i in range(kills):
        add(writer, f"new-{i}", NEW[i])
        _compact_in_a_process(place, moments.uniform(0.0, longest_s))
        follower.follow()
        for reader in (follower, place.open()):
            missing = {f"new-{n}" for n in range(i + 1)} - set(found(reader, NEW[i], k=1_000))
            if missing or found(reader, NEW[i], k=1) != [f"new-{i}"]:
                wrong.append(f"after kill {i}: {missing or found(reader, NEW[i])}")
    began = time.monotonic()
    place.compact()
    recovered_s = time.monotonic() - began
    if len(place.open()) != 500 + kills:
        wrong.append(f"{len(place.open())} entries instead of {500 + kills}")
    place.close()
    return Outcome(answers=2 * kills + 1, wrong=wrong, recovered_s=recovered_s)


def full_disk(bench: Bench, count: int) -> Outcome:
    """A worker without space on its disk: a compaction fails and says so, activations go on."""
    bench.fleet.have(1)  # its copies of the collection are the machine's
    bench.fleet.have(0)
    bench.fleet.start(Fault(full_disk=True))
    before = bench.submit(count)
    bench.until_ended(before)
    _fill_journal(bench, "starter")
    compaction = CompactRequest(collection="starter", nonce=str(time.time_ns()))
    bench.producer.ledger.submit([compaction])
    bench.sender.send(compaction.job_id, compaction.task, compaction.queue, compaction.model_dump(mode="json"))
    after = bench.submit(count)
    recovered_s = bench.until_ended(after)
    bench.until(lambda: bench.producer.ledger.get(compaction.job_id).state.closed, "the compaction does not end")
    jobs = [job.job_id for job in before + after] + [compaction.job_id]
    return Outcome(jobs, {"disk_unavailable": 1}, recovered_s)


def swapped_under_queries(bench: Bench, swaps: int) -> Outcome:
    """Generations are replaced while four threads ask: every answer is whole."""
    place = _place(bench)
    writer, reader = place.open(), place.open()
    add(writer, "new-0", NEW[0])
    done = threading.Event()
    wrong: list[str] = []

    def ask() -> int:
        asked = 0
        while not done.is_set() or asked < 5:
            assets = found(reader, NEW[0], k=100)
            asked += 1
            if assets[0] != "new-0" or len(set(assets)) != 100:
                wrong.append(f"{assets[:3]} of {len(set(assets))} assets")
        return asked

    with ThreadPoolExecutor(4) as pool:
        threads = [pool.submit(ask) for _ in range(4)]
        try:
            for i in range(1, 1 + swaps):
                add(writer, f"new-{i}", NEW[i])
                place.compact()
                reader.follow()
        finally:
            done.set()
        asked = sum(thread.result() for thread in threads)
    place.close()
    return Outcome(answers=asked, wrong=wrong, note=f"{swaps} generations")


# ── what they share ──────────────────────────────────────────────────────────────────────────────────────────────────


def _place(bench: Bench) -> Place:
    return Place.published(bench.settings, bench.state / "places")


def _fill_journal(bench: Bench, name: str) -> None:
    """Give a collection's next segment files of more than 100 kB: many ids, and long ones."""
    with connect_redis(bench.settings) as client:
        journal = Journal(client, name)
        code = np.zeros(read_codes().shape[1], dtype=np.uint8)
        for i in range(1_000):
            journal.add(f"{i:0200d}", code, {})


def _flipped(data: bytes, i: int) -> bytes:
    position = (len(data) // 2 + 97 * i) % len(data)
    return data[:position] + bytes([data[position] ^ 0x10]) + data[position + 1 :]


def _newest_manifest(place: Place) -> str:
    return max(place.store.list_keys(Bucket.COLLECTIONS, f"{place.name}/generations/"))


def _opened_although_damaged(bench: Bench, place: Place, key: str) -> list[str]:
    elsewhere = Place(place.name, bench.settings, bench.state / "elsewhere" / str(time.time_ns()))
    try:
        elsewhere.open()
    except AiiError:
        return []
    finally:
        elsewhere.close()
    return [f"{key} was opened although it is damaged"]


def _compact(*place: object) -> None:
    Place(*place).compact()  # type: ignore[arg-type]


def _compact_in_a_process(place: Place, killed_after_s: float | None) -> float:
    """Seconds it took, to its end or to its death."""
    process = forkserver().Process(target=_compact, args=(place.name, place.settings, place.cache))
    began = time.monotonic()
    process.start()
    process.join(killed_after_s)
    process.kill()
    process.join()
    return time.monotonic() - began


def _duration_of_a_compaction(place: Place) -> float:
    taken_s = 0.0
    for i in range(2):  # the first may have to start the server of processes
        add(place.open(), "old-0", unit_vectors(2, 5)[i])
        taken_s = _compact_in_a_process(place, None)
    return taken_s
