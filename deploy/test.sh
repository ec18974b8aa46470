#!/bin/sh
# Every check there is; arguments go to pytest. Exit status 1 when any of them failed.
set -eu

ROOT=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
. "$ROOT/deploy/install.sh"

install worker,monitor,gateway,local,evaluation,dev
cd "$ROOT"

# The tests start their own servers: neither the caller's variables nor the caller's stack file may lead them to a real one.
# AII_TEST_… are the tests' own.
for name in $(env | sed -n 's/^\(AII_[A-Za-z0-9_]*\)=.*/\1/p'); do
    case $name in
    AII_TEST_*) ;;
    *) unset "$name" ;;
    esac
done
AII_STATE_DIR=$(mktemp -d)
export AII_STATE_DIR
trap 'rm -rf "$AII_STATE_DIR"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

failed=''
check() {
    what=$1
    shift
    echo "== $what"
    "$@" || failed="$failed $what,"
}
check lint "$BIN/ruff" check
check format "$BIN/ruff" format --check
check types "$BIN/mypy"
check imports "$BIN/lint-imports"
check tests "$BIN/python" -m pytest -n logical --maxprocesses 8 --dist loadfile --no-loadscope-reorder "$@"

[ -z "$failed" ] || fail "FAILED:${failed%,}"
echo "All checks passed."
