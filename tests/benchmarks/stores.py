"""What an S3 server offers and does: ``python -m tests.benchmarks.stores NAME COMMAND``.

COMMAND is a line of a shell that starts the server, with PORT, FOLDER, S3_KEY and S3_SECRET in its environment, such as
``exec weed server -dir=$FOLDER -s3 -s3.port=$PORT``. It is started twice, each time empty: for `aii buckets`, and for a
worker that activates, answers and compacts.
"""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import click
import psutil
from pydantic import SecretStr

from tests.photographs import crops
from tests.ports import reserved_port
from tests.stack import WorkerProcess, aii, aii_here, running_stack, settings_of
from tests.waiting import LIMIT_S, wait_for

KEY, SECRET = "administrator", "of-the-administrator"
WISHES = ("--versions-days", "30", "--lock-days", "7", "--cors", "https://a.example")


@click.command(help=__doc__)
@click.argument("name")
@click.argument("command")
def main(name: str, command: str) -> None:
    click.echo(f"# {name}")
    with tempfile.TemporaryDirectory() as folder, running(command, Path(folder)) as environment:
        for line in administered(environment):
            click.echo(line)
    with tempfile.TemporaryDirectory() as folder, running(command, Path(folder)) as environment:
        for line in worked(environment, Path(folder)):
            click.echo(line)


@contextmanager
def running(command: str, folder: Path) -> Iterator[dict[str, str]]:
    """The server, in a folder of its own; yields the settings that lead to it, and prints what it took."""
    (data := folder / "data").mkdir()
    port = reserved_port()
    given = {"PORT": str(port), "FOLDER": str(data), "S3_KEY": KEY, "S3_SECRET": SECRET}
    began = time.monotonic()
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            ["sh", "-c", command], env=os.environ | given, stdout=log, stderr=log, start_new_session=True
        )
    try:
        wait_for(lambda: answers(port) or process.poll() is not None, "it does not answer")
        assert process.poll() is None, (folder / "log").read_text()
        click.echo(f"started after {time.monotonic() - began:.1f} s")
        yield {"AII_S3_ENDPOINT": f"127.0.0.1:{port}", "AII_S3_ACCESS_KEY": KEY, "AII_S3_SECRET_KEY": SECRET,
               "AII_STATE_DIR": str(folder / "state")}  # fmt: skip
        tree = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        click.echo(f"resident memory {sum(one.memory_info().rss for one in tree) / 1e6:.0f} MB")
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)  # a shell passes none on
        process.wait(LIMIT_S)


def answers(port: int) -> bool:
    """Whether it speaks HTTP, whatever it says to one without a key."""
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=LIMIT_S).close()
    except urllib.error.HTTPError as error:
        return error.code < 500
    except OSError:
        return False
    return True


def administered(environment: dict[str, str]) -> Iterator[str]:
    """A line for each kind of thing that `aii buckets` makes, and one for links."""
    made = aii_here(environment, "buckets", "init", *WISHES)
    yield from sorted({line[15:].strip() for line in made.stdout.splitlines()}) or [made.stderr.strip()]
    yield f"buckets init again ends with {aii_here(environment, 'buckets', 'init', *WISHES).returncode}"
    yield f"presigned links: {linked(environment)}"


def linked(environment: dict[str, str]) -> str:
    put, get = (aii_here(environment, "buckets", "link", "queries", "a/key", *more).stdout.strip()
                for more in (["--put"], []))  # fmt: skip
    with suppress(OSError):
        urllib.request.urlopen(
            urllib.request.Request(put, b"an image", {"Content-Type": "image/jpeg"}, method="PUT"), timeout=LIMIT_S
        ).close()
        with urllib.request.urlopen(get, timeout=LIMIT_S) as response:
            return "yes" if response.read() == b"an image" else "another object"
    return "no"


def worked(environment: dict[str, str], folder: Path) -> Iterator[str]:
    """A line for each command."""
    (images := folder / "images").mkdir()
    for number, image in enumerate(crops(8)):
        (images / f"{number}.jpg").write_bytes(image)
    given_s3 = {name: value for name, value in environment.items() if name.startswith("AII_S3_")}
    with running_stack(folder / "stack", 0, **given_s3) as given:
        settings = settings_of(folder / "stack").model_copy(update={
            "s3_endpoint": environment["AII_S3_ENDPOINT"], "s3_access_key": SecretStr(KEY),
            "s3_secret_key": SecretStr(SECRET)})  # fmt: skip
        worker = WorkerProcess(given, settings, folder / "worker.log", "query,activate,index")
        try:
            worker.wait_until_ready()
            commands = (["activate", str(images), "--steps", "1"], ["query", str(images / "0.jpg")],
                        ["index", "compact", "starter"], ["index", "verify", "starter"])  # fmt: skip
            for words in commands:
                done = aii(given, *words)
                said = "" if done.returncode == 0 else f": {done.stderr.strip().splitlines()[-1:]}"
                yield f"{' '.join(words[:2] if words[0] == 'index' else words[:1])} ends with {done.returncode}{said}"
        finally:
            worker.kill()


if __name__ == "__main__":
    main()
