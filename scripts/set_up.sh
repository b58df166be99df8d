#!/bin/sh
# Makes a virtual environment and installs the packages into it that one of the stacks pins:
#     set_up.sh           .venv, with constraints.txt
#     set_up.sh -latest   .venv-latest, with constraints-latest.txt
# PYTHON=... asks for one Python.
set -eu
cd "$(dirname "$0")/.."
stack="${1-}"
env=".venv$stack"
pins="constraints$stack.txt"

fail() {
    echo "set-up: $*" >&2
    exit 1
}

# Each is tried, not only looked for: a pyenv shim may stand for a version that is not there.
is_new_enough() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

find_python() {
    for name in ${PYTHON:-python3 python3.11 python3.12 python3.13 python3.14}; do
        if is_new_enough "$name"; then
            echo "$name"
            return
        fi
    done
    fail "no Python of at least 3.11 among '${PYTHON:-python3 python3.11 ... python3.14}'." \
        "On Debian 12 or newer type: sudo apt-get install -y python3 python3-venv"
}

# Debian leaves ensurepip out of python3, and with it the means to make an environment.
ensure_venv() {
    "$1" -c 'import ensurepip, venv' >/dev/null 2>&1 && return
    package="$("$1" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')"
    if ! command -v apt-get >/dev/null; then
        fail "$1 cannot make virtual environments: it lacks its modules venv and ensurepip."
    elif [ "$(id -u)" = 0 ]; then
        sudo=""
    elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
        sudo="sudo -n"
    else
        fail "$1 cannot make virtual environments yet. Type: sudo apt-get install -y $package"
    fi
    echo "set-up: installing $package"
    $sudo apt-get update -qq </dev/null || true
    $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$package" \
        </dev/null || fail "this failed: apt-get install -y $package"
}

install() {
    "$env/bin/python" -m pip install --disable-pip-version-check -c "$pins" "$@"
}

[ -f "$pins" ] || fail "there is no stack '$stack': expected nothing, or -latest."
if ! is_new_enough "$env/bin/python" || ! "$env/bin/python" -m pip --version >/dev/null 2>&1; then
    python="$(find_python)"
    ensure_venv "$python"
    rm -rf "$env"
    "$python" -m venv "$env"
fi
if [ -z "$stack" ]; then
    install -e '.[ent-bc,minari,dev]'
else
    install -e '.[ent-bc-latest,meta-world,minari,dev]'
    install --no-deps imitation # its pins forbid this stack; the extra lists what it needs
fi
