#!/bin/sh
# Make or refresh the virtual environment: sh scripts/setup.sh PYTHON VENV
#
# The lock is installed with hashes, then edge itself, editable. The bundled pip suffices; nothing
# is built from source and nothing outside VENV is touched.
set -eu
python=$1
venv=$2

fail() {
    printf 'setup: %s\n' "$1" >&2
    exit 1
}

# The interpreter: there, new enough, and able to make a virtual environment.
command -v "$python" >/dev/null 2>&1 ||
    fail "'$python' is not there. Install Python 3.11 or later (Debian: apt-get install python3 python3-venv), or name another: make PYTHON=python3.12 setup"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    fail "'$python' is $("$python" -V 2>&1), edge needs Python 3.11 or later. Name another: make PYTHON=python3.12 setup"
"$python" -c 'import ensurepip, venv' 2>/dev/null || {
    version=$("$python" -c 'import sys; print("python%d.%d" % sys.version_info[:2])')
    fail "'$python' cannot make a virtual environment (no ensurepip). Install it (Debian, Ubuntu: apt-get install ${version}-venv) and run make again"
}

# One that was moved, half made, or left behind by a Python that is gone, is made anew.
here=$(pwd -P)
made_at=$("$venv/bin/python" -c 'import os, sys; print(os.path.realpath(sys.prefix) if sys.version_info >= (3, 11) else "")' 2>/dev/null || true)
if [ "$made_at" != "$here/$venv" ] || ! head -n 3 "$venv/bin/pip" 2>/dev/null | grep -qF "$here/$venv/"; then
    printf 'setup: making %s with %s\n' "$venv" "$("$python" -V 2>&1)"
    rm -rf "$venv"
    "$python" -m venv "$venv"
fi

printf 'setup: installing the locked dependencies (the first time, this takes a minute or two)\n'
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes \
    --only-binary :all: -r requirements.lock ||
    fail "the dependencies could not be installed; pip says above which one and why"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    --no-build-isolation --no-deps --editable . ||
    fail "edge itself could not be installed; pip says above why"
printf 'setup: done; %s\n' "$("$venv/bin/python" -c 'import edge; print("edge", edge.__version__, "in", edge.__path__[0])')"
