#!/bin/sh
# From nothing to the main job on real photographs: installs, starts a local stack, activates images, queries edited
# copies of them, writes a report, stops what it started.
set -eu

ROOT=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
. "$ROOT/deploy/install.sh"

usage() {
    echo "Usage: sh deploy/demo.sh [--images DIR] [--out DIR] [--force]"
    echo "  --images DIR  photographs to use (default: those that come with scikit-image)"
    echo "  --out DIR     where the report goes (default: $ROOT/demo-report)"
    echo "  --force       replace files of others there"
    echo "The stack's data and logs go to AII_STATE_DIR (default: $ROOT/.aii)."
}

images='' out=$ROOT/demo-report force=''
while [ $# -gt 0 ]; do
    case $1 in
        --images) images=${2:?--images needs a folder} && shift 2 ;;
        --out) out=${2:?--out needs a folder} && shift 2 ;;
        --force) force=yes && shift ;;
        -h | --help) usage && exit 0 ;;
        *) usage >&2 && exit 2 ;;
    esac
done
[ -z "$images" ] || [ -d "$images" ] || fail "--images: there is no folder $images."

stack='' # process id of the stack, when it is ours
stop() {
    trap - EXIT
    trap '' INT TERM HUP # a second Ctrl-C must not leave the stack behind
    if [ -n "$stack" ] && kill -TERM "$stack" 2>/dev/null; then
        echo "Stopping the stack."
        wait "$stack" || :
    fi
}
trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

is_up() {
    "$BIN/aii" up --check >/dev/null 2>&1
}

# `aii up` ends by itself when a service does not start; it ends with 0 when the folder's stack is being started already.
await_stack() {
    polls=0
    until is_up; do
        if [ -n "$stack" ] && ! kill -0 "$stack" 2>/dev/null; then
            status=0
            wait "$stack" || status=$?
            stack=''
            if [ "$status" -ne 0 ]; then
                cat "$log" >&2
                fail "The stack did not start. Logs: $AII_STATE_DIR/logs"
            fi
        fi
        polls=$((polls + 1))
        [ "$polls" -lt 200 ] || fail "The stack is still not ready. Logs: $AII_STATE_DIR/logs"
        sleep 1
    done
}

install worker,monitor,local,evaluation
AII_STATE_DIR=${AII_STATE_DIR:-$ROOT/.aii}
export AII_STATE_DIR
log=$AII_STATE_DIR/logs/up.log

if is_up; then
    echo "Using the stack that runs in $AII_STATE_DIR."
else
    echo "Starting Redis, S3, workers and Flower in $AII_STATE_DIR; the workers' first start takes a minute."
    (umask 077 && mkdir -p "$AII_STATE_DIR/logs")
    "$BIN/aii" up >"$log" 2>&1 &
    stack=$!
    await_stack
fi
"$BIN/aii" up --check

"$BIN/aii" demo ${images:+--images "$images"} --out "$out" ${force:+--force}
