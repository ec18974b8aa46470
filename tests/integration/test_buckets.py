"""``aii buckets``: what is missing is made once, and what a server does not have is said."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest

from tasks.command_line import EXIT_FAILED, EXIT_USAGE
from tasks.settings import Settings
from tests.moto_server import moto_server
from tests.stack import aii_here

_ALL = ("--versions-days", "30", "--cors", "https://a.example", "--notify", "originals=arn:aws:sqs:us-east-1:1:queue")


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Of an S3 server that has everything, and is empty."""
    with moto_server(tmp_path) as address:
        yield {"AII_STATE_DIR": str(tmp_path), "AII_S3_ENDPOINT": address, "AII_S3_ACCESS_KEY": "key",
               "AII_S3_SECRET_KEY": "secret"}  # fmt: skip


@pytest.fixture
def s3(environment: dict[str, str]) -> boto3.client:
    keys = {"aws_access_key_id": "key", "aws_secret_access_key": "secret", "region_name": "us-east-1"}
    return boto3.client("s3", endpoint_url=f"http://{environment['AII_S3_ENDPOINT']}", **keys)


def states(output: str) -> dict[str, int]:
    """How many lines end so."""
    ends = ("there", "missing", "made", "not offered by this server")
    return {end: count for end in ends if (count := sum(line.endswith(f" {end}") for line in output.splitlines()))}


def test_what_is_missing_is_made_once_and_a_dry_run_makes_nothing(
    environment: dict[str, str], s3: boto3.client
) -> None:
    dry = aii_here(environment, "buckets", "init", "--dry-run", *_ALL)
    assert (dry.returncode, list(states(dry.stdout))) == (EXIT_FAILED, ["missing"])
    assert s3.list_buckets()["Buckets"] == []
    made = aii_here(environment, "buckets", "init", *_ALL)
    assert (made.returncode, list(states(made.stdout))) == (0, ["made"]), made.stdout
    for command in (["init"], ["check"]):
        again = aii_here(environment, "buckets", *command, *_ALL)
        assert (again.returncode, list(states(again.stdout))) == (0, ["there"])
    assert {b["Name"] for b in s3.list_buckets()["Buckets"]} == {
        "originals", "queries", "protected", "results", "collections", "extractors",
    }  # fmt: skip
    rules = {rule["ID"]: rule for rule in s3.get_bucket_lifecycle_configuration(Bucket="queries")["Rules"]}
    assert rules["aii-queries"]["Expiration"]["Days"] == 1
    assert rules["aii-incoming"]["Filter"]["Prefix"] == "incoming/"
    assert rules["aii-incomplete"]["AbortIncompleteMultipartUpload"]["DaysAfterInitiation"] == 1
    assert s3.get_bucket_versioning(Bucket="protected")["Status"] == "Enabled"
    assert s3.get_bucket_cors(Bucket="originals")["CORSRules"][0]["AllowedOrigins"] == ["https://a.example"]


def test_rules_of_others_stay_and_a_changed_number_replaces_our_own(
    environment: dict[str, str], s3: boto3.client
) -> None:
    aii_here(environment, "buckets", "init")
    held = s3.get_bucket_lifecycle_configuration(Bucket="queries")["Rules"]
    other = {"ID": "theirs", "Status": "Enabled", "Filter": {"Prefix": "old/"}, "Expiration": {"Days": 9}}
    s3.put_bucket_lifecycle_configuration(Bucket="queries", LifecycleConfiguration={"Rules": [*held, other]})
    assert aii_here(environment, "buckets", "check", "--queries-days", "7").returncode == EXIT_FAILED
    assert aii_here(environment, "buckets", "init", "--queries-days", "7").returncode == 0
    rules = {rule["ID"]: rule for rule in s3.get_bucket_lifecycle_configuration(Bucket="queries")["Rules"]}
    assert set(rules) == {"aii-queries", "aii-incoming", "aii-incomplete", "theirs"}
    assert rules["aii-queries"]["Expiration"]["Days"] == 7


def test_versions_are_locked_in_buckets_that_were_there_and_in_new_ones(
    environment: dict[str, str], s3: boto3.client
) -> None:
    s3.create_bucket(Bucket="originals")
    done = aii_here(environment, "buckets", "init", "--lock-days", "5")
    assert done.returncode == 0, done.stdout
    for bucket in ("originals", "protected"):
        rule = s3.get_object_lock_configuration(Bucket=bucket)["ObjectLockConfiguration"]["Rule"]
        assert (rule["DefaultRetention"]["Mode"], rule["DefaultRetention"]["Days"]) == ("GOVERNANCE", 5)


def test_what_the_local_stack_does_not_offer_is_said_and_is_an_error_only_if_it_was_asked_for(
    settings: Settings, stack_environment: dict[str, str]
) -> None:
    plain = aii_here(stack_environment, "buckets", "init")
    assert (plain.returncode, states(plain.stdout)["there"]) == (0, 6)
    assert states(plain.stdout)["not offered by this server"] > 0
    assert aii_here(stack_environment, "buckets", "init", "--versions-days", "3").returncode == EXIT_FAILED


def test_a_link_uploads_and_another_reads_without_keys(settings: Settings, stack_environment: dict[str, str]) -> None:
    put, get = (aii_here(stack_environment, "buckets", "link", "originals", "linked", *option).stdout.strip()
                for option in (["--put"], []))  # fmt: skip
    urllib.request.urlopen(urllib.request.Request(put, b"image", method="PUT")).close()
    with urllib.request.urlopen(get) as answer:
        assert answer.read() == b"image"


def test_policies_name_the_buckets_of_the_settings(tmp_path: Path) -> None:
    environment = {
        "AII_STATE_DIR": str(tmp_path),
        "AII_BUCKET_RESULTS": "originals-2",
        "AII_BUCKET_ORIGINALS": "results",
    }
    done = aii_here(environment, "buckets", "policies", str(tmp_path / "out"))
    assert {Path(line).name for line in done.stdout.splitlines()} >= {"s3-producer.json", "s3-worker.json"}
    statements = json.loads((tmp_path / "out" / "s3-producer.json").read_text())["Statement"]
    assert statements[0]["Resource"] == ["arn:aws:s3:::results/*", "arn:aws:s3:::queries/*"]
    assert statements[1]["Resource"] == ["arn:aws:s3:::originals-2/*", "arn:aws:s3:::protected/*"]


@pytest.mark.parametrize(
    ("arguments", "variables", "said"),
    [(["--notify", "no-arn"], {}, "BUCKET=ARN"), ([], {"AII_BUCKET_RESULTS": "X"}, "AII_BUCKET"),
     ([], {"AII_S3_ENDPOINT": "127.0.0.1:1"}, "does not answer")],
)  # fmt: skip
def test_what_cannot_be_is_refused_with_what_to_write(
    arguments: list[str], variables: dict[str, str], said: str, environment: dict[str, str]
) -> None:
    done = aii_here(environment | variables, "buckets", "init", *arguments)
    assert (done.returncode >= EXIT_USAGE, said in done.stderr) == (True, True), done.stderr
