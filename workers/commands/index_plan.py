"""``aii index plan``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

import click

from tasks.command_line import Command, FiniteRange
from tasks.machine import memory_bytes
from tasks.messages import USUAL_NPROBE
from workers.commands.index_options import one_json_object, stored_features

if TYPE_CHECKING:
    from workers.index.codec.hosts import Hosts
    from workers.index.codec.stored import FeatureType

__all__ = ["plan"]

_MOST_MEMORY_GIB: Final = 2**20


@click.command(cls=Command)
@click.option("--images", required=True, type=click.IntRange(1), help="How many images are expected.")
@click.option("--dimension", default=512, show_default=True, type=click.IntRange(1), help="Dimension of the features.")
@click.option("--bytes", "max_bytes", type=click.IntRange(1), help="At most this many bytes of code for an image.")
@click.option("--ms", "max_ms", type=FiniteRange(0, min_open=True), help="At most this many milliseconds for a search.")
@click.option(
    "--nprobe", default=USUAL_NPROBE, show_default=True, type=click.IntRange(1, 65_536), help="Cells a search visits."
)
@stored_features
@click.option(
    "--memory", type=FiniteRange(0, _MOST_MEMORY_GIB, min_open=True),
    help="Memory of a host in GiB. [default: this machine's]",
)  # fmt: skip
@one_json_object
def plan(
    images: int,
    dimension: int,
    max_bytes: int | None,
    max_ms: float | None,
    nprobe: int,
    features: FeatureType | None,
    memory: float | None,
    as_json: bool,
) -> None:
    """Propose an index (FAISS factory string) for an expected number of images, with its costs and the reasons: what
    was measured to find most copies within so many bytes, and what a search costs on this machine."""
    from workers.index.codec.hosts import hosts_for  # noqa: PLC0415
    from workers.index.codec.plan import measure_costs, propose  # noqa: PLC0415  # loads torch and FAISS
    from workers.index.codec.stored import FeatureFormat  # noqa: PLC0415

    proposal = propose(images, dimension, measure_costs(dimension), max_bytes, max_ms, nprobe)
    if features:
        proposal = proposal.with_features(images, FeatureFormat(features, dimension))
    hosts = hosts_for(proposal, images, max(1, int(memory * 2**30)) if memory else memory_bytes())
    if as_json:
        click.echo(json.dumps(proposal.model_dump() | {"hosts": hosts.model_dump()}))
        return
    click.echo(f"factory  {proposal.factory}")
    click.echo(
        f"code     {proposal.code_bytes} bytes an image; the segment's files {proposal.file_bytes / 2**20:,.0f} MiB"
    )
    if features:
        size = images * proposal.feature_bytes / 2**20
        click.echo(f"features {proposal.feature_bytes} bytes an image ({features}), {size:,.0f} MiB of these files")
    click.echo(f"search   about {proposal.search_ms:.3f} ms on one core of this machine, nprobe {proposal.nprobe}")
    for reason in proposal.reasons:
        click.echo(f"because  {reason}")
    click.echo(f"hosts    {_hosts(hosts)}")
    click.echo(f"disk     {_disk(hosts)}")


def _hosts(hosts: Hosts) -> str:
    """Whether one host is enough, and if not, what to start."""
    size, host = (f"{count / 2**30:,.1f} GiB" for count in (hosts.list_bytes, hosts.host_bytes))
    need = f"searches read {size} of codes from memory"
    if hosts.shards == 1:
        return f"{need}: one of {host} is enough; more only answer more queries"
    if hosts.shards is None:
        return f"{need}, more than one of {host} holds, and this index has no cells to divide: allow it fewer bytes"
    return (
        f"{need}: divide the cells among {hosts.shards} of {host}, with `aii worker --shard 1/{hosts.shards}` and so "
        f"on; a query then costs Redis {hosts.redis_commands} commands more and waits for the slowest shard, and "
        f"without a second worker of each shard, answers are partial while one is away"
    )


def _disk(hosts: Hosts) -> str:
    """What each host fetches."""
    size = f"{hosts.disk_bytes / 2**30:,.1f} GiB a host"
    twice = "twice, as the next generation is fetched beside the current one"
    if hosts.shards in (1, None):
        return f"{size}: all files, {twice}"
    return (
        f"{size}: its part of the codes and all tables, {twice}; and {hosts.whole_disk_bytes / 2**30:,.1f} GiB of one "
        "without a shard, for repairs and compactions"
    )
