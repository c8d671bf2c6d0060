#!/bin/sh
# Writes constraints.txt from what is installed in .venv: names and versions only, so that any index serves.
# To move on to newer versions: remove constraints.txt's lines of old ones, `make setup-dev`, then run this.
set -eu
cd "$(dirname "$0")/.."
{
    echo "# Versions that CI and make install. Refresh: scripts/constrain.sh"
    .venv/bin/uv pip freeze --python .venv/bin/python --exclude-editable | grep -v -i -E '^(pip|setuptools)==|@|://'
} >constraints.new
mv constraints.new constraints.txt
