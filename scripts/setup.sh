#!/bin/sh
# Makes .venv with moat, its providers and the development tools. Safe to run again: does nothing when nothing changed.
#   scripts/setup.sh            moat and its providers: enough for `make demo`
#   scripts/setup.sh dev        and what checks and tests need
# Needs Python >= 3.11 with its venv module, and pip. Takes uv from PyPI for speed; pip does the work where uv is not to be had.
set -eu
cd "$(dirname "$0")/.."
kind=${1:-run}

# Whatever the caller's shell says about Python, uv or virtual environments is not about this project.
unset PYTHONPATH PYTHONHOME PYTHONSTARTUP VIRTUAL_ENV CONDA_PREFIX PIP_TARGET PIP_PREFIX PIP_USER PIP_REQUIRE_VIRTUALENV \
    PIP_CONSTRAINT PIP_PYTHON UV_PYTHON UV_PROJECT UV_PROJECT_ENVIRONMENT UV_SYSTEM_PYTHON UV_CONSTRAINT UV_OFFLINE UV_NO_INDEX || true
PATH=${PATH:-/usr/local/bin:/usr/bin:/bin}
export PATH PIP_DISABLE_PIP_VERSION_CHECK=1 UV_PYTHON_DOWNLOADS=never UV_SYSTEM_CERTS=1
roots=/etc/ssl/certs/ca-certificates.crt
if [ -r "$roots" ]; then # private roots of a company's network live here, and pip does not look by itself
    export PIP_CERT=$roots SSL_CERT_FILE=$roots
fi

fail() {
    echo "error: $1" >&2
    echo "hint: $2" >&2
    exit 1
}

# The distribution's Python first: it is built with profile-guided optimization, which builds of one's own seldom are, and
# without which the proxy costs half as much again.
find_python() {
    for candidate in /usr/bin/python3 python3 python3.13 python3.12 python3.11; do
        if "$candidate" -c 'import sys, venv, pip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    fail "no Python 3.11 or newer with venv and pip" "run: sudo apt-get install python3 python3-pip python3-venv"
}

projects="moat-core moat-provider-github moat-provider-aws moat-provider-claude moat-provider-codex"
wanted="$kind $(cat constraints.txt pyproject.toml requirements-dev.txt moat-*/pyproject.toml scripts/setup.sh | cksum) $(pwd)"
if [ "$(cat .venv/ready 2>/dev/null)" != "$wanted" ] && [ "$(cat .venv/ready 2>/dev/null)" != "dev ${wanted#* }" ]; then
    python=$(find_python)
    echo "setting up .venv ($("$python" --version))" >&2
    rm -f .venv/ready
    [ -x .venv/bin/python ] || "$python" -m venv --without-pip --clear .venv ||
        fail "cannot make a virtual environment" "run: sudo apt-get install python3-venv"
    set --
    for project in $projects; do set -- "$@" -e "./$project"; done
    [ "$kind" = dev ] && set -- "$@" -r requirements-dev.txt
    pip() { "$python" -m pip --python .venv/bin/python "$@"; }
    if [ -x .venv/bin/uv ] || pip install --quiet --constraint constraints.txt uv 2>/dev/null; then
        .venv/bin/uv pip install --quiet --python .venv/bin/python --constraint constraints.txt "$@"
    else
        pip install --quiet --constraint constraints.txt "$@" ||
            fail "pip could not install moat" "look above; is the package index reachable?"
    fi
    echo "$wanted" >.venv/ready
fi

# A sealed run without Docker needs bubblewrap. Installed only where nobody has to be asked.
if ! command -v bwrap >/dev/null 2>&1; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
        echo "installing bubblewrap" >&2
        { apt-get install -y -qq bubblewrap || { apt-get update -qq && apt-get install -y -qq bubblewrap; }; } >/dev/null 2>&1 ||
            echo "bubblewrap could not be installed; run: apt-get update && apt-get install bubblewrap" >&2
    else
        echo "bubblewrap is not installed; run: sudo apt-get install bubblewrap" >&2
    fi
fi
