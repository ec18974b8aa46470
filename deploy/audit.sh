#!/bin/sh
# What the locked packages are (a CycloneDX SBOM), and whether weaknesses of them are known. Argument: the SBOM's file, by
# default sbom.json. Exit status 1 when a weakness is known; 0 as well when the advisories cannot be reached, which is said.
set -eu

ROOT=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
SBOM=${1:-sbom.json}
. "$ROOT/deploy/install.sh"

install audit
found=$(mktemp)
trap 'rm -f "$found"' EXIT

"$BIN/cyclonedx-py" requirements "$ROOT/deploy/lock/all.txt" --pyproject "$ROOT/pyproject.toml" \
    --output-reproducible --of JSON -o "$SBOM"
echo "Wrote $SBOM."

# Its exit status is 1 for a weakness and for a service that does not answer; only the former leaves a report.
if "$BIN/pip-audit" --requirement "$ROOT/deploy/lock/all.txt" --disable-pip --require-hashes --progress-spinner off \
    --format json --output "$found"; then
    echo "No known weakness."
elif [ -s "$found" ]; then
    "$BIN/python" -m json.tool "$found"
    fail "Weaknesses are known: raise the lower bounds in pyproject.toml and run deploy/lock.sh."
else
    echo "The audit was skipped: the advisory service did not answer, as said above."
fi
