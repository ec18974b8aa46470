"""Options that several commands of ``aii index`` have."""

from __future__ import annotations

import click

__all__ = ["one_json_object", "stored_features"]

stored_features = click.option(
    "--features", type=click.Choice(["float16", "int8"]),
    help="Store features beside the codes, and compare the best matches by them: 2 bytes a dimension, or 1.",
)  # fmt: skip
one_json_object = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
