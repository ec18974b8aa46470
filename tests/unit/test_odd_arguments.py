"""Nothing that is typed or set wrongly ends in a traceback, or in the message for a bug."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from producer.cli import aii
from tests.photographs import crops

AWAY = {"AII_REDIS_URL": "redis://127.0.0.1:1/0", "AII_S3_ENDPOINT": "127.0.0.1:1"}
ODD = st.one_of(
    st.sampled_from([
        "", " ", ".", "..", "/", "-", "--", "-x", "\0", "a\0b", "~nobody/x", "/dev/null", "/proc/self/mem", "nan",
        "inf", "-1", "1e999", "9" * 40, "=", "=v", "k=", "k=v=w", "a" * 5_000, "é", "\udcff", "💥\u202e", "\n",
        "{}", "%s", "*",
    ]),
    st.text(max_size=12),
)  # fmt: skip
COMMANDS = (
    ["activate"], ["query"], ["jobs", "list"], ["jobs", "show"], ["jobs", "wait"], ["jobs", "download"],
    ["jobs", "retry"], ["jobs", "cancel"], ["status"], ["index", "list"], ["index", "info"], ["index", "remove"],
    ["index", "purge"], ["index", "repair"], ["index", "verify"], ["index", "rollback"], ["index", "delete"],
    ["index", "compact"], ["index", "build"], ["index", "plan"], ["index", "audit"], ["index", "duplicates"],
    ["evaluate"],
)  # fmt: skip
OPTIONS = (
    "--asset-id", "--asset-id-from", "--meta", "--where", "--out", "--force", "--timeout", "--no-wait", "--json",
    "--csv", "--html", "--wait-for-services", "--top", "--nprobe", "--steps", "--alpha", "--min-psnr", "--collection",
    "--limit", "--all", "--replace", "--again", "--quality", "--learning-rate", "--yes", "--dry-run", "--prefix",
    "--to", "--sample", "--least", "--images", "--references", "--disc", "--factory", "--fpr", "--background",
    "--extractor", "--index", "--other", "--count", "--hold-out", "--seed", "--here",
)  # fmt: skip


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("odd") / "photo.jpg"
    path.write_bytes(crops(1)[0])
    return path


def outcome(arguments: list[str], state: Path, **variables: str) -> tuple[int, str]:
    environment = AWAY | {"AII_STATE_DIR": str(state)} | variables
    done = CliRunner().invoke(aii, arguments, env=environment, input="\xff\n")
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.output


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(COMMANDS), st.lists(st.one_of(st.sampled_from(OPTIONS), ODD), max_size=4))
@example(["activate"], ["\0"])
@example(["query"], ["\udcff", "--html", "\0"])
@example(["jobs", "download"], ["0" * 32, "--out", "/dev/null"])
@example(["index", "plan"], ["--images", "1000", "--memory", "inf"])
@example(["index", "plan"], ["--images", "1000", "--memory", "1e-10"])
def test_odd_arguments_end_in_an_exit_code_that_the_help_names(
    photo: Path, monkeypatch: pytest.MonkeyPatch, command: list[str], rest: list[str]
) -> None:
    monkeypatch.chdir(photo.parent)
    if "/" in rest or ".." in rest:  # folders that hold far more than this test's
        return
    code, said = outcome(
        [*command, *([str(photo)] if command[0] in ("activate", "query") else []), *rest], photo.parent
    )
    if "--wait-for-services" not in rest:
        assert code in (0, 1, 2, 3)
    assert "unexpected" not in said.lower() or "unexpected extra argument" in said, said


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(
        ["AII_REDIS_URL", "AII_S3_ENDPOINT", "AII_S3_REGION", "AII_BUCKET_RESULTS", "AII_LEASE_S", "AII_DEVICE"]
    ),
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20),
    st.sampled_from(["", "redis://", "https://", "unix://", "redis://:pw@127.0.0.1:1/"]),
)
def test_odd_settings_end_in_an_exit_code_that_the_help_names(
    photo: Path, variable: str, text: str, start: str
) -> None:
    if "127.0.0.1:1" not in start and variable in ("AII_REDIS_URL", "AII_S3_ENDPOINT") and "." in text:
        return  # a name that might exist
    code, said = outcome(["jobs", "list"], photo.parent, **{variable: start + text})
    assert (code in (2, 3), "bug" in said) == (True, False), said


@pytest.mark.parametrize("odd", ["nan", "inf", "-inf", "-1", "2", "0", "1", "few"])
def test_a_rate_is_a_number_between_0_and_1(photo: Path, odd: str) -> None:
    for command in (["query", str(photo)], ["index", "build", "a", "--images", str(photo.parent)]):
        code, said = outcome([*command, "--fpr", odd], photo.parent)
        assert (code, "Invalid value for '--fpr'" in said) == (2, True), said


def test_no_command_takes_nan_or_infinity_for_a_number() -> None:
    def visit(command: click.Command, path: list[str]) -> Iterator[str]:
        for parameter in command.params:
            if isinstance(parameter.type, click.types.FloatParamType):
                for odd in ("nan", "inf", "-inf"):
                    with pytest.raises(click.BadParameter):
                        parameter.type(odd, parameter)
                    yield " ".join([*path, *parameter.opts])
        if isinstance(command, click.Group):
            with click.Context(command) as context:
                for name in command.list_commands(context):
                    child = command.resolve_command(context, [name])[1]
                    assert child is not None
                    yield from visit(child, [*path, name])

    found = set(visit(aii, []))
    assert {"activate --alpha", "query --timeout", "buckets init --wait-for-services"} <= found


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--meta", "a=1", "--meta", "a=2"], "'a' is given two values"),
        (["--quality", "90", "--lossless"], "exclude each other"),
    ],
)
def test_options_that_contradict_each_other_are_wrong_usage(photo: Path, options: list[str], said: str) -> None:
    code, told = outcome(["activate", str(photo), *options], photo.parent)
    assert (code, said in told) == (2, True), told
    repeated = outcome(["activate", str(photo), "--meta", "a=1", "--meta", "a=1"], photo.parent)
    assert repeated[0] == 3  # no Redis is there


@pytest.mark.parametrize("odd", [["nan"], ["inf"], ["-1"], ["near"], ["0.5", "--fpr", "0.01"]])
def test_a_threshold_is_a_distance_and_takes_no_rate_beside_it(photo: Path, odd: list[str]) -> None:
    code, said = outcome(["query", str(photo), "--threshold", *odd], photo.parent)
    assert (code, "Invalid value for '--threshold'" in said or "exclude each other" in said) == (2, True), said
