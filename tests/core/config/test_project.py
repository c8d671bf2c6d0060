from __future__ import annotations

import json
from pathlib import Path

import pytest
from architecture.tree import ROOT
from moat.api.errors import UsageError
from moat.config.checkout import Checkout
from moat.config.project import Loaded, Network, Project, load_project, schema_text
from moat.config.sections import MountEntry

PATH = Path("/w/moat.yaml")
SCHEMA = ROOT / "docs" / "reference" / "moat-yaml.schema.json"


def loaded(text: str) -> Project:
    return load_project(Checkout(PATH, text.encode())).project


def refusal(text: str) -> UsageError:
    with pytest.raises(UsageError) as caught:
        loaded(text)
    return caught.value


@pytest.mark.parametrize("text", ["", "# nothing\n", "network:\n  # policy: strict\n", "env:\ncommand: ~\n"])
def test_a_file_that_says_nothing_is_the_defaults(text: str) -> None:
    assert loaded(text) == Project()


def test_every_key_is_read() -> None:
    project = loaded(
        "name: mine\ncommand: [make, -j, 4]\nenv: {CI: yes, VERSION: 1.10, EMPTY: }\ngrants: [github]\n"
        "secrets: {DB: env://DB}\nmounts: [{source: ./a, target: /a, read_only: yes}]\n"
        "network: {policy: strict, allow: [pypi.org], rules: [deny DELETE *]}\nbase_image: debian:trixie\n"
        "runtime: docker\ncontainer: {memory: 1g, cpus: 0.5, pids: 100, ulimits: {nofile: {soft: 1, hard: -1}}}\n"
    )

    assert (project.name, project.command, project.grants) == ("mine", ("make", "-j", "4"), ("github",))
    assert project.env == {"CI": "yes", "VERSION": "1.10", "EMPTY": ""}
    assert project.secrets == {"DB": "env://DB"}
    assert project.mounts == (MountEntry(source="./a", target="/a", read_only=True),)
    assert project.network == Network(policy="strict", allow=("pypi.org",), rules=("deny DELETE *",))
    assert (project.base_image, project.runtime) == ("debian:trixie", "docker")
    assert (project.container.memory, project.container.cpus, project.container.pids) == (1 << 30, 0.5, 100)
    assert project.container.ulimits["nofile"].hard == -1


@pytest.mark.parametrize(
    ("text", "problem", "hint"),
    [
        ("nam: x", "line 1: nam: this key is not known", "did you mean name?"),
        ("\nnetwork:\n  polcy: x", "line 3: network.polcy: this key is not known", "did you mean network.policy?"),
        ("mounts: [{source: a, taget: /a}]", "mounts.0.taget", "did you mean mounts.0.target?"),
        ("container: {ulimits: {core: {sof: 1, hard: 2}}}", "core.sof", "did you mean container.ulimits.core.soft?"),
        ("host_ports: [5432]", "host_ports: this key is not known", "did you mean network.host_ports?"),
        ("network: {ports: {web: 3000}}", "network.ports: this key is not known", "did you mean ports?"),
        ("memory: 2g", "memory: this key is not known", "did you mean container.memory?"),
        ("workspace: {exlude: [a]}", "workspace.exlude: this key", "did you mean workspace.exclude?"),
        ("model: opus", "model: this key is not known", "known here: name, agent, agents, command"),
        ("agents: {claude: {modell: x}}", "agents.claude.modell", "did you mean agents.claude.model?"),
        ("hooks: {prerun: x}", "hooks.prerun: this key is not known", "did you mean hooks.pre_run?"),
    ],
)
def test_an_unknown_key_is_an_error_with_its_line_and_a_suggestion(text: str, problem: str, hint: str) -> None:
    error = refusal(text)

    assert error.problem.startswith(f"{PATH}, line ")
    assert problem in error.problem
    assert error.hint.startswith(hint)


@pytest.mark.parametrize(
    ("text", "problem", "hint"),
    [
        ("name: A B", "name: is not written", "name: my-project"),
        ("command: make", "command: must be a list", "command: [make, test]"),
        ("command: ['', x]", "empty word", "edit"),
        ("env: [a]", "env: must be a mapping", "env: {CI: 1}"),
        ("env: {1A: x}", "env.1A: is not written", "env: {CI: 1}"),
        ("env: {A: {b: c}}", "env.A: must be text", "env: {CI: 1}"),
        ("secrets: {A: vault/x}", "secrets.A: is not written", "env://DATABASE_URL"),
        ("env: {A: x}\nsecrets: {A: env://A}", "A stands in both env and secrets", "edit"),
        ("mounts: ['./a:/a']", "mounts.0: must be a mapping", "{source: ./fixtures"),
        ("mounts: [{source: a, target: /etc}]", "line 1: mounts.0.target: nothing can be mounted", "write target"),
        ("mounts: [{source: a, target: a}]", "mounts.0.target", "write target"),
        (
            "workspace: {exclude: ['!a']}",
            "workspace.exclude.0: begins with !",
            "workspace.exclude: [.env, node_modules]",
        ),
        ("workspace: {exclude: .env}", "workspace.exclude: must be a list", "workspace.exclude: [.env"),
        (
            "mounts: [{source: a, target: /a, exclude: [..]}]",
            "mounts.0.exclude.0: names no path",
            'mounts.exclude: ["*.key"',
        ),
        ("mounts: [{source: a}]", "mounts.0.target: is missing", "mounts.target: /data"),
        ("volumes: {A: /a}", "volumes.A: is not written", "volumes: {cache: /home/moat/.cache}"),
        ("volumes: {a: /etc}", "line 1: volumes.a: nothing can be mounted", "write the path inside like /data"),
        ("volumes: [a]", "volumes: must be a mapping", "volumes: {cache: /home/moat/.cache}"),
        ("interactive: maybe", "interactive: must be true or false", "interactive: auto"),
        ("snapshots: {every: 10}", "snapshots.every: write a number with s, m or h", "snapshots.every: 10m"),
        ("snapshots: {every: 0s}", "snapshots.every: must be greater", "snapshots.every: 10m"),
        ("snapshots: {evry: 10m}", "snapshots.evry: this key is not known", "did you mean snapshots.every?"),
        ("network: {policy: loose}", "network.policy: must be 'permissive' or 'strict'", "network.policy: strict"),
        ("container: {memory: lots}", "container.memory: write bytes", "container.memory: 2g"),
        ("container: {memory: 1k}", "container.memory: must be greater", "container.memory: 2g"),
        ("container: {cpus: .nan}", "container.cpus: must be a", "container.cpus: 1.5"),
        ("ports: {web: 0}", "ports.web.port: must be greater", "ports.web.port: 3000"),
        ("dependencies: [pip:--pre]", "dependencies.0: write it like pip:ruff==0.6", "dependencies: [node@22"),
        ("dependencies: [nod@22]", "did you mean node?", "dependencies: [node@22"),
        ("dependencies: [node@20, node@22]", "two versions of one thing", "edit"),
        ("hooks: {postbuild: x}", "hooks.postbuild: this key is not known", "did you mean hooks.post_build?"),
        ("hooks: {post_build: [a]}", "hooks.post_build: must be text", "hooks.post_build: useradd app"),
        ("hooks: {pre_run: {a: b}}", "hooks.pre_run: must be a list", "hooks.pre_run: [npm ci]"),
        ("hooks: {pre_run: ['']}", "hooks.pre_run.0: ", "hooks.pre_run: [npm ci]"),
        ("mcp: [{name: m, ulr: x}]", "mcp.0.ulr: this key is not known", "did you mean mcp.0.url?"),
        ("base_image: ''", "base_image: must not be empty", "base_image: debian:bookworm-slim"),
        ("mcp: [{name: m}]", "mcp.0.url: is missing", "mcp.url: https://mcp.linear.app/mcp"),
        ("container: {pids: 1.5}", "container.pids: must be a", "container.pids: 512"),
        ("container: {ulimits: {core: {soft: 2, hard: 1}}}", "soft must not be above hard", "ulimits: {nofile:"),
        ("container: {ulimits: {nproc: {soft: 1, hard: 1}}}", "ulimits.nproc: must be 'core'", "ulimits: {nofile:"),
        ("- a", "must be a mapping of settings", "moat init"),
        ("a: [", "line 1", "edit"),
        ("a: &x 1", "anchors", "edit"),
    ],
)
def test_a_wrong_value_is_told_where_it_is_and_how_it_is_written(text: str, problem: str, hint: str) -> None:
    error = refusal(text)

    assert error.problem.startswith(str(PATH))
    assert problem in error.problem
    assert hint in error.hint


def test_a_key_that_draws_is_shown_as_what_it_is() -> None:
    error = refusal('"\\e[2mdim\\n": x')

    assert error.problem.isprintable()
    assert "\\x1b[2mdim\\n: this key is not known" in error.problem


def test_two_mounts_at_one_place_are_told_with_the_second_ones_line() -> None:
    error = refusal("mounts:\n  - {source: a, target: /a}\n  - {source: b, target: /a/}\n")

    assert "line 3: mounts.1.target: /a is the target of two mounts" in error.problem
    assert "volumes.v: /a is the target" in refusal("mounts: [{source: a, target: /a}]\nvolumes: {v: /a}").problem


@pytest.mark.parametrize(
    "text", ["secrets: {A: s3cr3t}", "env: {A: [s3cr3t]}", "env: {A: s3cr3t}\nsecrets: {A: env://A}", "name: s3cr3t X"]
)
def test_what_is_written_in_a_wrong_place_is_not_repeated(text: str) -> None:
    error = refusal(text)

    assert "s3cr3t" not in error.problem + error.hint


def test_what_a_file_sets_is_not_shown_by_accident() -> None:
    read: Loaded = load_project(Checkout(PATH, b"env: {A: s3cr3t}"))

    assert "s3cr3t" not in repr(read)


def test_the_published_schema_is_that_of_the_models() -> None:
    assert SCHEMA.read_text() == schema_text(), f"run: .venv/bin/moat init --schema > {SCHEMA.relative_to(ROOT)}"


def test_the_schema_lets_editors_help() -> None:
    schema = json.loads(schema_text())

    assert schema["additionalProperties"] is False
    for name, field in Project.model_fields.items():
        assert field.description, name
        assert field.examples, name


@pytest.mark.parametrize(
    ("text", "ports"),
    [("[5432, 80]", {"5432": 5432, "80": 80}), ("{db: 5432}", {"db": 5432}), ("", {})],
)
def test_ports_of_this_machine_are_read(text: str, ports: dict[str, int]) -> None:
    assert loaded(f"network:\n  policy: strict\n  host_ports: {text or '{}'}").network.host_ports == ports


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[19080]", "port 19080 is the run's own"),
        ("{db.x: 1}", "is not written as it must be"),
        ("[x]", "must be a whole number"),
        ("5432", "must be a mapping"),
    ],
)
def test_a_port_of_this_machine_that_cannot_be_is_told(text: str, problem: str) -> None:
    failure = refusal(f"network: {{host_ports: {text}}}")

    assert problem in failure.problem
    assert "network" in failure.problem
