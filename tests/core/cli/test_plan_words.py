from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from moat.api.runs import RunSpec
from moat.cli.plan_words import as_json, as_text
from moat.config.dependencies import checked_dependencies
from moat.config.settings import Settings
from moat.daemon.protocol import SetupResponse
from moat.runs.masks import Hidden
from moat.runs.merge import Options
from moat.runs.plan import Found, plan
from moat.runs.prepare import Prepared
from moat.runs.recipe import make_recipe

from core.runs.fakes import FakeClient, FakeRuntime
from core.runs.plans import HOME, OURS, WORK, some_facts
from core.runs.projects import joined, options, settings

RULE = "api.github.com: sets Authorization: (redacted), for github"
SETUP = SetupResponse(
    {"GH_TOKEN": "placeholder"}, {"/home/moat/.config/x": "y\n"}, hosts=("api.github.com",), ca_certificate=OURS,
    rules=(RULE,),
)  # fmt: skip
FILE = (
    "name: mine\ncommand: [make, test]\nenv: {A: s3cr3t-a, B: s3cr3t-b}\nsecrets: {S: env://X}\ngrants: [github]\n"
    "mounts: [{source: ./data, target: /data, read_only: true}]\n"
    "network: {policy: strict, allow: [pypi.org], rules: [deny DELETE *]}\nbase_image: other\n"
    "container: {memory: 1g, ulimits: {core: {soft: 0, hard: 0}}}\n"
)
FLAGS = options(command=("true",), env={"A": "s3cr3t-flag"}, grants=("aws",), policy="permissive", image="flagged")


def planned(text: str, said: Options | None = None, own: Settings | None = None) -> tuple[Prepared, RunSpec]:
    """Return what the plan would be in a runtime with images. A secret is not fetched for it."""
    spec = joined(text, said or options(command=("git", "push")), own)
    paths = {mount.source: Found(mount.source, "folder") for mount in spec.mounts}
    passwords = {each.name: f"s3cr3t-{each.name}" for each in spec.services}
    facts = some_facts(SETUP if spec.grants else None, paths, needs_image=True, passwords=passwords)
    return Prepared(facts, plan(spec, facts), FakeRuntime([]), FakeClient(HOME, [])), spec


def told(text: str, said: Options | None = None, own: Settings | None = None) -> dict[str, object]:
    found = json.loads(json.dumps(as_json(*planned(text, said, own), [])))
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize(
    ("text", "said", "own", "values", "origins"),
    [
        pytest.param(
            "", None, None,
            {"name": None, "command": ["git", "push"], "workspace": "/srv/work", "workdir": "/workspace",
             "image": "debian:bookworm-slim", "policy": {"mode": "permissive", "allow": [], "rules": []}, "grants": [],
             "spent_on": [], "credential_rules": [], "limits": {}, "sealed": True, "warnings": []},
            {"command": "command line", "policy": "default", "image": "default", "runtime": "default"},
            id="a command and nothing else",
        ),
        pytest.param(
            FILE, options(), None,
            {"name": "mine", "command": ["make", "test"], "image": "other", "grants": ["github"],
             "policy": {"mode": "strict", "allow": ["pypi.org"], "rules": ["deny DELETE *"]},
             "spent_on": ["api.github.com"], "credential_rules": [RULE],
             "limits": {"memory": 1 << 30, "ulimits.core": {"soft": 0, "hard": 0}}},
            {"name": "moat.yaml", "command": "moat.yaml", "policy": "moat.yaml", "image": "moat.yaml",
             "grant.github": "moat.yaml", "allow.pypi.org": "moat.yaml", "rule.deny DELETE *": "moat.yaml",
             "limit.memory": "moat.yaml"},
            id="all from the file",
        ),
        pytest.param(
            FILE, FLAGS, None,
            {"name": "mine", "command": ["true"], "image": "flagged", "grants": ["aws", "github"]},
            {"command": "command line", "policy": "--policy", "image": "--image", "grant.aws": "--grant",
             "grant.github": "moat.yaml"},
            id="options over the file",
        ),
        pytest.param(
            "", None, settings("strict", "deny DELETE *", image="own", runtime="docker"),
            {"image": "own", "policy": {"mode": "strict", "allow": [], "rules": ["deny DELETE *"]}},
            {"policy": "config.yaml", "image": "config.yaml", "runtime": "config.yaml",
             "rule.deny DELETE *": "config.yaml"},
            id="the settings alone",
        ),
    ],
)  # fmt: skip
def test_the_whole_plan_is_told_and_who_asked_for_what(
    text: str, said: Options | None, own: Settings | None, values: dict[str, object], origins: dict[str, str]
) -> None:
    found = told(text, said, own)

    assert found | values == found
    owners = found["from"]
    assert isinstance(owners, dict)
    assert owners | origins == owners


def test_every_variable_mount_and_file_has_its_owner() -> None:
    found = told(FILE, FLAGS)

    variables, mounts, files = found["variables"], found["mounts"], found["files"]
    assert isinstance(variables, dict)
    assert isinstance(mounts, list)
    assert isinstance(files, dict)
    assert variables["A"] == {"value": "(as given)", "from": "-e"}
    assert variables["B"] == {"value": "(as given)", "from": "moat.yaml"}
    assert variables["S"] == {"value": "(fetched at start)", "from": "moat.yaml, env://X"}
    assert variables["GH_TOKEN"] == {"value": "placeholder", "from": "grants aws, github"}
    assert variables["HTTPS_PROXY"]["from"] == "moat"
    assert variables["HOME"] == {"value": "/home/moat", "from": "default"}
    assert mounts[0] == {"source": "/srv/work", "target": "/workspace", "read_only": False, "from": "workspace"}
    assert mounts[-1] == {"source": "/srv/work/data", "target": "/data", "read_only": True, "from": "moat.yaml"}
    assert files["/home/moat/.config/x"] == {"bytes": 2, "from": "grants aws, github"}


def test_no_value_of_the_users_is_repeated() -> None:
    assert "s3cr3t" not in json.dumps(told(FILE, FLAGS))
    assert "s3cr3t" not in as_text(*planned(FILE, FLAGS))


def test_a_person_is_told_the_same() -> None:
    lines = as_text(*planned(FILE, replace(FLAGS, profile="work"))).splitlines()

    for line in (
        "name       mine  [moat.yaml]",
        "command    true  [command line]",
        "runtime    fake (sealed)  [default], image flagged  [--image]",
        "policy     permissive  [--policy]",
        "  + pypi.org  [moat.yaml]",
        "  deny DELETE *  [moat.yaml]",
        "  aws  [--grant]",
        "  github  [moat.yaml]",
        "profile    work  [--profile]",
        "spent on   api.github.com",
        f"  {RULE}",
        "  memory 1073741824  [moat.yaml]",
        "  /workspace = /srv/work  [workspace]",
        "  /home/moat/.config/x (2 bytes of ours) (read-only)  [grants aws, github]",
        "  A=(as given)  [-e]",
        "  GH_TOKEN=placeholder  [grants aws, github]",
    ):
        assert line in lines


def test_a_line_is_a_line_whatever_stands_in_it() -> None:
    lines = as_text(*planned("", options(command=("sh", "-c", "true\nlimits     none\tat all")))).splitlines()

    assert "limits     none of its own" in lines
    assert [line for line in lines if line.startswith("limits")] == ["limits     none of its own"]


def test_what_would_be_asked_first_stands_among_the_warnings() -> None:
    prepared, spec = planned("")

    assert as_json(prepared, spec, ["not granted yet"])["warnings"] == ["not granted yet"]


def test_the_workspace_is_that_of_the_facts() -> None:
    assert Path(str(told("")["workspace"])) == WORK


def test_servers_and_ports_are_told() -> None:
    text = "ports: {web: 3000}\nvolumes: {cache: /c}\nmcp: [{name: m, url: 'https://a.example/x', grant: g}]"
    found, lines = told(text), as_text(*planned(text)).splitlines()

    assert (found["ports"], found["volumes"]) == ({"web": 3000}, {"cache": "/c"})
    assert "volume     cache = /c  [moat.yaml]" in lines
    assert found["mcp"] == [
        {"name": "m", "url": "https://a.example/x", "grant": "g", "header": "Authorization", "tools": []}
    ]
    assert "mcp        m = https://a.example/x, sent the credential g  [moat.yaml]" in lines
    assert "port       web = 3000  [moat.yaml]" in lines


@pytest.mark.parametrize(("is_built", "state"), [(False, "is to be built first"), (True, "is there")])
def test_an_image_of_the_runs_own_is_told_with_its_recipe(is_built: bool, state: str) -> None:
    prepared, spec = planned("base_image: debian\ndependencies: [rust, apt:jq]")
    recipe = make_recipe(checked_dependencies(spec.dependencies), spec.image, "sha256:a")
    prepared = replace(prepared, recipe=recipe, is_built=is_built)

    lines, found = as_text(prepared, spec).splitlines(), as_json(prepared, spec, [])

    assert f"image      {recipe.tag} {state}, from debian  [moat.yaml]" in lines
    assert "  + apt:jq  [moat.yaml]" in lines
    assert "  | apt_install jq" in lines
    assert found["build"] == {
        "base_image": "debian",
        "dependencies": ["apt:jq", "rust"],
        "is_built": is_built,
        "recipe": recipe.text,
    }
    assert told("")["build"] is None


def test_what_is_hidden_is_told_with_its_pattern() -> None:
    spec = joined("workspace: {exclude: [.env]}", options(command=("true",), excluded=("b/",)))
    facts = some_facts(hidden={"/workspace": (Hidden(".env", "file", ".env"), Hidden("b", "folder", "b/"))})
    prepared = Prepared(facts, plan(spec, facts), FakeRuntime([]), FakeClient(HOME, []))

    lines, found = as_text(prepared, spec).splitlines(), as_json(prepared, spec, [])

    assert "  /workspace without b/  [--exclude]" in lines
    assert "  /workspace without .env  [moat.yaml]" in lines
    assert "    /workspace/.env is hidden, a file" in lines
    assert not [line for line in lines if ".hidden" in line]
    everything = [
        {"path": "/workspace/.env", "kind": "file", "pattern": ".env"},
        {"path": "/workspace/b", "kind": "folder", "pattern": "b/"},
    ]
    assert found["hidden"] == everything
    on_a_copy = replace(spec, on_a_copy=True)
    assert as_json(replace(prepared, plan=plan(on_a_copy, facts)), on_a_copy, [])["hidden"] == everything


def test_hooks_are_told_before_the_command() -> None:
    text = "hooks: {pre_run: [npm ci]}"
    lines = as_text(*planned(text)).splitlines()

    assert lines[1:3] == ["before     npm ci  [moat.yaml]", "command    git push  [command line]"]
    assert (told(text)["pre_run"], told(text)["command"]) == (["npm ci"], ["git", "push"])


def test_ports_of_this_machine_are_told() -> None:
    text = "network: {host_ports: {db: 5432}}"
    line = "host port  127.0.0.1:5432 = db.host.moat.internal:5432  [moat.yaml]"

    assert line in as_text(*planned(text)).splitlines()
    assert told(text)["host_ports"] == [{"port": 5432, "inside": "db.host.moat.internal:5432"}]


def test_services_are_told_without_their_passwords() -> None:
    text = "services: {db: postgres@16, cache: {kind: redis, image: mine}}"
    prepared, spec = planned(text)
    lines = as_text(replace(prepared, absent=("postgres:16",)), spec).splitlines()
    found = told(text)

    assert "service    db = postgres:16 (is to be fetched first), at 127.0.0.1:5432  [moat.yaml]" in lines
    assert "service    cache = mine (is there), at 127.0.0.1:6379  [moat.yaml]" in lines
    assert "  PGPASSWORD=(generated)  [service db]" in lines
    assert "s3cr3t" not in "".join(lines) + json.dumps(found)
    assert found["services"][1] == {  # type: ignore[index] # JSON
        "name": "cache", "kind": "redis", "image": "mine", "is_there": True, "port": 6379,
        "ready": ["redis-cli", "-h", "127.0.0.1", "-p", "6379", "ping"], "user": "redis", "env": ["REDISCLI_AUTH"],
    }  # fmt: skip


def test_terminal_and_snapshots_are_told() -> None:
    text = "interactive: false\nsnapshots: {before: true, every: 1m}"
    lines, found = as_text(*planned(text)).splitlines(), told(text)

    for line in ("terminal   none", "snapshot   before it", "snapshot   every 60 s"):
        assert f"{line}  [moat.yaml]" in lines
    assert (found["interactive"], found["snapshots"]) == (False, {"before": True, "every_s": 60})
    assert told("")["interactive"] == "auto"
    on_a_copy = options(command=("true",), on_a_copy=True)
    assert "snapshot   none while it works, on a copy  [moat.yaml]" in as_text(*planned(text, on_a_copy)).splitlines()
