"""A real project in a run: cloned with a login, its dependencies installed, its tests run, all through the proxy."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from support import git_server
from support.inside import PLACE as INSIDE
from support.places import ROOT_PLACES, Place

from e2e.conftest import SECRET
from e2e.test_clients import skip_without

pytestmark = ROOT_PLACES
REGISTRY = "https://open.example.com"  # wants no login
VERSIONS = """
import moat_sample
from packaging.version import Version

def newest(versions):
    return str(max(map(Version, versions)))

def greeting():
    return moat_sample.GREETING
"""
TEST_VERSIONS = """
import pytest
from app.versions import greeting, newest

@pytest.mark.parametrize("versions", [["1.9", "1.10"], ["1.10", "1.2"]])
def test_the_newest_is_no_matter_of_letters(versions):
    assert newest(versions) == "1.10"

def test_what_was_installed_can_be_used(tmp_path):
    (tmp_path / "file").write_text(greeting())
    assert (tmp_path / "file").read_text() == "installed by pip"
"""
TEST_OPTIONS = """
const test = require('node:test'), assert = require('node:assert')

test('options are read', async () => {
  const { default: yargs } = await import('yargs')
  assert.strictEqual(yargs(['--port', '3000']).parseSync().port, 3000)
})
test('what was installed can be used', () => {
  assert.strictEqual(require('moat-sample'), 'installed by npm')
})
"""
PACKAGE = {
    "name": "app",
    "private": True,
    "dependencies": {"yargs": "*", "moat-sample": "^1.0.0"},
    "scripts": {"test": "node --test --test-reporter=tap"},
}
PROJECT = {
    ".gitignore": ".venv/\nnode_modules/\npackage-lock.json\n__pycache__/\n.pytest_cache/\n",
    "requirements.txt": f"--index-url {REGISTRY}/simple/\npytest\npackaging\nmoat-sample==1.0.0\n",
    "app/__init__.py": "",
    "app/versions.py": VERSIONS,
    "tests/test_versions.py": TEST_VERSIONS,
    ".npmrc": f"registry={REGISTRY}/npm/\naudit=false\nfund=false\nupdate-notifier=false\n",
    "package.json": json.dumps(PACKAGE),
    "options.test.js": TEST_OPTIONS,
}
WORK = f"""
git clone --quiet https://github.com/REPOSITORY app && cd app
python3 -m venv --without-pip .venv
export PYTHONPATH={INSIDE}/lib
python3 -m pip --python .venv/bin/python install --quiet --no-cache-dir --no-compile -r requirements.txt
unset PYTHONPATH
.venv/bin/python -m pytest --quiet
mkdir /tmp/bin && ln -s {INSIDE}/node /tmp/bin/node && export PATH=/tmp/bin:$PATH
npm() {{ node {INSIDE}/npm/bin/npm-cli.js "$@"; }}
npm install --silent && npm test
env > /workspace/environment
cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline > /workspace/processes 2>/dev/null || true
"""


@dataclass(frozen=True)
class Work:
    """What the run did. trace: one entry an exchange, as `moat trace --json` tells it. seen: what arrived anywhere."""

    output: str
    workspace: Path
    repository: str
    trace: list[dict[str, object]]
    seen: Mapping[tuple[str, str, str], int]


@pytest.fixture(scope="module")
def work(place: Place) -> Iterator[Work]:
    """Do all of it in one run, under a policy that lets nothing out but what is needed."""
    for needed in ("git", f"{INSIDE}/node", f"{INSIDE}/npm", f"{INSIDE}/lib/pip"):
        skip_without(needed, place)
    repository = f"{place.runtime}-{place.user or 'root'}/project.git"
    git_server.make_project(place.services.projects, repository, PROJECT)
    workspace, before = place.workspace(), len(place.services.seen)
    flags = ("--policy", "strict", "--allow-host", "open.example.com", "--name", "project")
    output = place.ok("bash", "-ec", WORK.replace("REPOSITORY", repository), flags=flags, workspace=workspace)
    trace = json.loads(place.installation.ok("trace", "project", "--network", "--json"))
    seen = Counter((each.method, each.host, each.path.partition("?")[0]) for each in place.services.seen[before:])
    yield Work(output, workspace, repository, trace, seen)
    place.installation.ok("destroy", "project")
    del place.services.seen[before:]  # other tests ask for the same packages, with a login


def test_a_private_project_is_cloned_installed_and_its_tests_pass(work: Work, place: Place) -> None:
    assert "3 passed" in work.output
    assert "# pass 2" in work.output
    assert "# fail 0" in work.output
    place.assert_spent(f"/{work.repository}", "github.com")


def test_everything_came_through_the_proxy_and_nothing_else_left(work: Work) -> None:
    told = Counter((each["method"], each["host"], each["path"]) for each in work.trace)

    assert {each["outcome"] for each in work.trace} <= {"forwarded"}
    assert told == Counter(work.seen)
    fetched = {str(each["path"]).split("/")[2] for each in work.trace if str(each["path"]).startswith("/simple/")}
    assert {"pytest", "pluggy", "iniconfig", "packaging", "pygments", "moat-sample"} <= fetched
    assert any(str(each["path"]).startswith("/npm/yargs-parser/-/") for each in work.trace)


def test_the_credential_went_to_the_repository_alone_and_is_nowhere_inside(work: Work) -> None:
    assert {each["host"] for each in work.trace if each["grants"]} == {"github.com"}
    assert "GH_TOKEN" in (work.workspace / "environment").read_text()
    for path in work.workspace.rglob("*"):
        if path.is_file() and not path.is_symlink():
            assert SECRET.encode() not in path.read_bytes(), path
