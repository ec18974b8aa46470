"""What expires: a rule of a bucket's lifecycle each, which leaves the rules of others alone."""

from __future__ import annotations

from dataclasses import dataclass

from minio import Minio
from minio.commonconfig import ENABLED, Filter
from minio.lifecycleconfig import (
    AbortIncompleteMultipartUpload,
    Expiration,
    LifecycleConfig,
    NoncurrentVersionExpiration,
    Rule,
)

__all__ = ["ExpiryRule"]


@dataclass(frozen=True)
class ExpiryRule:
    """One rule.

    Attributes:
        name: the rule's ID in the bucket's lifecycle.
        prefix: of the keys that it is about; "" for all.
        expire_days: after which objects go.
        superseded_days: after which versions go that another has replaced, or that were deleted.
        incomplete_days: after which uploads in parts go that were not completed.
    """

    bucket: str
    what: str
    name: str
    prefix: str = ""
    expire_days: int | None = None
    superseded_days: int | None = None
    incomplete_days: int | None = None
    asked_for: bool = False

    def holds(self, client: Minio) -> bool:
        return any(_said(rule) == _said(self._rule()) for rule in _rules(client, self.bucket))

    def make(self, client: Minio) -> None:
        others = [rule for rule in _rules(client, self.bucket) if rule.rule_id != self.name]
        client.set_bucket_lifecycle(self.bucket, LifecycleConfig([*others, self._rule()]))

    def _rule(self) -> Rule:
        superseded, incomplete = self.superseded_days, self.incomplete_days
        return Rule(
            status=ENABLED,
            rule_id=self.name,
            rule_filter=Filter(prefix=self.prefix),
            expiration=Expiration(days=self.expire_days) if self.expire_days else None,
            noncurrent_version_expiration=NoncurrentVersionExpiration(superseded) if superseded else None,
            abort_incomplete_multipart_upload=AbortIncompleteMultipartUpload(incomplete) if incomplete else None,
        )


def _rules(client: Minio, bucket: str) -> list[Rule]:
    held = client.get_bucket_lifecycle(bucket)
    return list(held.rules) if held else []


def _said(rule: Rule) -> tuple[object, ...]:
    """What a rule says, whatever form a server gives it back in."""
    expiration, superseded = rule.expiration, rule.noncurrent_version_expiration
    incomplete = rule.abort_incomplete_multipart_upload
    return (
        rule.rule_id,
        rule.status,
        (rule.rule_filter.prefix if rule.rule_filter else None) or "",
        expiration.days if expiration else None,
        superseded.noncurrent_days if superseded else None,
        incomplete.days_after_initiation if incomplete else None,
    )
