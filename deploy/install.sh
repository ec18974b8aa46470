# Sourced by demo.sh and test.sh, with ROOT set: `install EXTRAS` makes $ROOT/.venv, installs into it what is missing and
# sets BIN to the folder of its programs. With LOCKED=1, packages are those of deploy/lock, by version and digest.

fail() {
    echo "$*" >&2
    exit 1
}

is_recent() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

find_python() {
    for candidate in python3.13 python3.12 python3.11 python3; do
        if is_recent "$candidate"; then
            echo "$candidate"
            return
        fi
    done
    fail "Python 3.11 or newer is needed and none was found (looked for python3.13, python3.12, python3.11, python3)."
}

make_venv() {
    python=$(find_python)
    echo "Making $ROOT/.venv with $("$python" --version)."
    if ! "$python" -m venv "$ROOT/.venv"; then
        rm -rf "$ROOT/.venv" # half of one would be taken for a whole one next time
        fail "$python cannot make virtual environments; on Debian and Ubuntu install the package python3-venv."
    fi
}

install() {
    BIN=$ROOT/.venv/bin
    [ -e "$BIN/python" ] || make_venv
    is_recent "$BIN/python" || fail "$ROOT/.venv is broken or older than Python 3.11: delete it and start again."

    lock=$ROOT/deploy/lock/all.txt
    stamp=$ROOT/.venv/.installed-$(echo "$1" | tr ',' '-')
    checksum=$(cat "$ROOT/pyproject.toml" ${LOCKED:+"$lock"} | cksum)
    if [ ! -f "$stamp" ] || [ "$(cat "$stamp")" != "$checksum" ]; then
        echo "Installing $1 into $ROOT/.venv; the first time this downloads some gigabytes."
        if [ -n "${LOCKED:-}" ]; then
            "$BIN/python" -m pip install --disable-pip-version-check --require-hashes --no-deps -r "$lock"
        fi
        "$BIN/python" -m pip install --disable-pip-version-check -e "$ROOT[$1]"
        echo "$checksum" >"$stamp"
    fi
}
