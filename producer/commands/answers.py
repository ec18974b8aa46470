"""``aii explain``, ``aii feedback`` and ``aii lookup``: what they take. How they run is in :mod:`producer.one_job` and
:mod:`producer.lookup`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import click

from producer.commands.options import collection_option, query_options
from tasks.command_line import Command, FiniteRange, PathText

if TYPE_CHECKING:
    from producer.session import Wanted

__all__ = ["explain", "feedback", "lookup"]

_timeout = click.option(
    "--timeout", "timeout_s", type=FiniteRange(min=0), help="Seconds to wait for the answer; default: no limit."
)
_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


@click.command(cls=Command)
@click.argument("image", metavar="QUERY|-", type=PathText())
@click.argument("asset_id", metavar="ASSET")
@collection_option
@query_options
@_timeout
@_json
def explain(
    image: str, asset_id: str, collection: str | None, timeout_s: float | None, as_json: bool, **options: Any
) -> None:
    """Explain why a query of the image QUERY finds the asset ASSET, or does not.

    Says which cell of the index the asset's code is in as seen from the query, the least nprobe that finds it,
    distances to its code, its original and its protected file, and what to expect had it been published unchanged.
    """
    from producer import one_job  # noqa: PLC0415  # Celery and the S3 client take long to import

    one_job.explain(image, asset_id, collection, _wanted(timeout_s, as_json), options)


@click.command(cls=Command)
@click.argument("job_id", metavar="JOB")
@click.argument("opinion", type=click.Choice(["confirm", "reject"]))
@click.option("--asset", "asset_id", metavar="ASSET", help="The match that this is about; default: the first.")
@_timeout
@_json
def feedback(
    job_id: str, opinion: Literal["confirm", "reject"], asset_id: str | None, timeout_s: float | None, as_json: bool
) -> None:
    """Confirm or reject what the query JOB found: a rejected asset is not reported for that image again.

    JOB is the query's job, as `aii query --json` names it, or as many of its first digits as no other job has.
    """
    from producer import one_job  # noqa: PLC0415  # as above

    one_job.feedback(job_id, opinion, asset_id, _wanted(timeout_s, as_json))


@click.command(cls=Command)
@click.argument("path", metavar="VECTORS|-", type=PathText())
@collection_option
@query_options
@click.option("--extractor", metavar="SHA256", help="Extractor that the vectors are of; refused where it is another.")
@_timeout
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per vector, one a line.")
def lookup(
    path: str, collection: str | None, extractor: str | None, timeout_s: float | None, as_json: bool, **options: Any
) -> None:
    """Find what is registered near feature vectors that were extracted elsewhere.

    VECTORS is a .npy file of float32 or float64 (N, D), or JSON: a list of lists, or one list a line. They are of unit
    length, as the collection's extractor gives them.
    """
    from producer import lookup as look_up  # noqa: PLC0415  # as above

    look_up.lookup(path, collection, extractor, _wanted(timeout_s, as_json), options)


def _wanted(timeout_s: float | None, as_json: bool) -> Wanted:
    from producer.session import Wanted  # noqa: PLC0415  # as above

    return Wanted(timeout_s=timeout_s, as_json=as_json)
