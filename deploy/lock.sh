#!/bin/sh
# Writes the lock files anew, from pyproject.toml: exact versions and digests of all packages, for every supported Python,
# system and processor. They hold no address: any index that has these files will do.
set -eu

ROOT=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
. "$ROOT/deploy/install.sh"

install audit
cd "$ROOT"

# uv does not read pip's configuration; what pip is held to on this machine must be in the lock as well.
constraint=$("$BIN/python" -m pip config list | sed -n "s/^global\.constraint='\(.*\)'$/\1/p")
lock() {
    file=deploy/lock/$1.txt
    shift
    "$BIN/uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes --upgrade \
        --no-header --no-annotate --no-emit-index-url ${constraint:+--constraint "$constraint"} "$@" -o "$file" >/dev/null
    echo "Wrote $file."
}
lock build deploy/lock/build.in
lock worker pyproject.toml --extra worker
lock worker-cpu pyproject.toml --extra worker --override deploy/lock/without-gpu.in
lock monitor pyproject.toml --extra monitor
lock gateway pyproject.toml --extra gateway
lock all pyproject.toml --extra worker --extra monitor --extra gateway --extra local --extra evaluation --extra dev
