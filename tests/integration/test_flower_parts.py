"""What the page is made of, on a real S3 server and a real Redis."""

from __future__ import annotations

import io
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from PIL import Image, ImageStat
from pydantic import SecretStr

pytest.importorskip("flower")

from deploy.flower import pictures, snapshot
from deploy.flower.pictures import PictureBook, placeholder
from deploy.flower.snapshot import LatestResults, Snapshot
from tasks.errors import AiiError, BadInput, NotFound, NotReady, RedisUnavailable, StorageUnavailable, TooLarge
from tasks.messages import ActivationOptions
from tasks.names import sha256_hex
from tasks.results import ActivationResult, Quality, Verification
from tasks.settings import Settings
from tasks.storage import Bucket, ObjectStore
from tests.photographs import crops, pixels

MAX_BYTES = 2**24
JOB = (uuid.uuid4().hex, 1)


def file_of(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def activation(original: bytes, protected: bytes, job_id: str = JOB[0]) -> ActivationResult:
    """As far as the page looks at it."""
    return ActivationResult.model_construct(
        status="activated", job_id=job_id, asset_id="a", collection="starter", source_sha256=sha256_hex(original),
        protected_key="starter/a.jpg", protected_sha256=sha256_hex(protected), width=8, height=8,
        options=ActivationOptions(), quality=Quality(psnr_db=40, ssim=1, linf=1),
        verification=Verification(
            verified=True, on_code=True, attempts=1, steps=1, distance_before=1, distance_after=0, loss_before=1,
            loss_after=0,
        ),
    )  # fmt: skip


@pytest.fixture
def published(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes, bytes], PictureBook]:
    """A book in which any job is the activation of one file into another."""

    def publish(original: bytes, protected: bytes) -> PictureBook:
        result = activation(original, protected)
        store.put(Bucket.ORIGINALS, result.source_sha256, original, "image/jpeg")
        store.put(Bucket.PROTECTED, result.protected_key, protected, "image/jpeg")
        monkeypatch.setattr(pictures, "read_result", lambda _store, _job_id, _commit: result)
        return PictureBook(store, MAX_BYTES)

    return publish


def shown(book: PictureBook, which: str) -> Image.Image:
    return Image.open(io.BytesIO(book.picture(JOB, which)))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_rotated_photograph_is_shown_upright_and_differs_by_what_was_changed_only(
    orientation: int, kind: str, published: Callable[[bytes, bytes], PictureBook]
) -> None:
    upright = Image.fromarray(pixels("chelsea.png"))
    exif = Image.Exif()
    exif[0x0112] = orientation
    inverse = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # of the transposition that the orientation asks for
    stored = upright.transpose(Image.Transpose(inverse[orientation])) if orientation > 1 else upright
    book = published(file_of(stored, kind, quality=95, exif=exif), file_of(upright, kind, quality=95))
    assert shown(book, "original").size == shown(book, "protected").size
    assert shown(book, "original").width > shown(book, "original").height
    difference = ImageStat.Stat(shown(book, "difference").convert("L"))
    assert difference.mean[0] == pytest.approx(128, abs=3)
    assert difference.stddev[0] < 12


def test_pictures_that_many_ask_for_at_once_are_made_once(
    published: Callable[[bytes, bytes], PictureBook], monkeypatch: pytest.MonkeyPatch
) -> None:
    photo, other = crops(2)
    book, made = published(photo, other), []
    monkeypatch.setattr(pictures, "difference", lambda a, _: made.append(1) or a)
    with ThreadPoolExecutor(9) as threads:
        asked = ["original", "protected", "difference"] * 3
        assert all(threads.map(lambda which: book.picture(JOB, which), asked))
    assert made == [1]


def test_what_is_gone_too_large_or_no_picture_has_a_placeholder(
    published: Callable[[bytes, bytes], PictureBook], store: ObjectStore
) -> None:
    photo = crops(1)[0]
    large = file_of(Image.new("L", (8_000, 5_001)), "PNG")
    bomb = file_of(Image.new("1", (20_000, 10_000)), "PNG")
    for original, kind in ((large, TooLarge), (bomb, BadInput), (b"no picture", BadInput)):
        with pytest.raises(kind) as caught:
            published(original, photo).picture(JOB, "original")
        assert placeholder(caught.value)[:3] == b"\xff\xd8\xff"
    book = published(photo, photo)
    store.delete(Bucket.ORIGINALS, sha256_hex(photo))
    with pytest.raises(NotFound) as missing:
        book.picture(JOB, "difference")
    assert placeholder(missing.value) != placeholder(StorageUnavailable("away"))


class Asked:
    """Reads no document while S3 is away, and counts how often it was asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.jobs: list[str] = []
        self.commits = {"3": 1, "2": 1, "1": 1, "0": 1}
        self.away = True
        monkeypatch.setattr(snapshot, "read_result", self._read)

    def _read(self, _store: ObjectStore, job_id: str, commit: int) -> ActivationResult:
        assert commit == self.commits[job_id]
        self.jobs.append(job_id)
        if self.away:
            raise StorageUnavailable("S3 is away.")
        if job_id == "1":
            raise NotFound("deleted")
        return activation(b"", b"", job_id)


def test_an_s3_that_is_away_is_asked_once_and_what_was_read_stays(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = Asked(monkeypatch)
    results = LatestResults(store, lambda: asked.commits)
    results.refresh()
    assert (results.shown(), results.problem, asked.jobs) == ([], "S3 is away.", ["3"])
    asked.away = False
    results.refresh()
    assert ([shown["job_id"] for shown in results.shown()], results.problem) == (["3", "2", "0"], None)
    asked.jobs.clear()
    asked.commits = {"4": 1, **asked.commits}
    results.refresh()
    assert (asked.jobs, len(results.shown())) == (["4"], 4)


def test_the_document_of_a_job_that_was_done_again_is_read_again(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = Asked(monkeypatch)
    asked.away = False
    results = LatestResults(store, lambda: asked.commits)
    results.refresh()
    asked.jobs.clear()
    asked.commits["2"] = 2
    results.refresh()
    assert asked.jobs == ["2"]
    assert {shown["job_id"]: shown["commit"] for shown in results.shown()} == {"3": 1, "2": 2, "0": 1}


def test_a_snapshot_says_why_there_is_none(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    away = settings.model_copy(update={"redis_url": SecretStr("redis://127.0.0.1:1/0")})
    nothing = Snapshot(away)
    with pytest.raises(NotReady, match="just started"):
        nothing.current()
    nothing.refresh()
    with pytest.raises(RedisUnavailable, match="does not answer"):
        nothing.current()
    nothing.close()

    good = Snapshot(settings)
    good.refresh()
    assert good.current()[0].workers == []
    monkeypatch.setattr(snapshot, "_STALE_S", -1.0)  # as when Redis has been silent on a half-open connection
    with pytest.raises(RedisUnavailable, match="has not answered"):
        good.current()
    monkeypatch.setattr(snapshot.Observer, "read", lambda _: 1 / 0)
    good.refresh()
    with pytest.raises(AiiError, match="ZeroDivisionError"):
        good.current()
    good.close()
