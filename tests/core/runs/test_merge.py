from __future__ import annotations

from pathlib import Path

import pytest
from moat.api.container import Limits, Mount
from moat.api.errors import UsageError
from moat.api.runs import HostPort, McpServer, RunSpec, SnapshotTimes
from moat.config.services import known_service
from moat.config.settings import DEFAULT_IMAGE, Settings, TraceSettings, WorkspaceSettings
from moat.net.rules import rule_text
from moat.runs.merge import Options, merged, secret_of

from core.runs.projects import USER_HOME, WORK, joined, options, settings

WHOLE = (
    "name: of-file\ncommand: [make]\nenv: {A: file, B: file}\ngrants: [github, aws]\n"
    "secrets: {S: env://X}\n"
    "mounts: [{source: ./data, target: /data}, {source: ~/more, target: /more, read_only: true}]\n"
    "network: {policy: strict, allow: [b.example], rules: [deny b.example]}\nbase_image: of-file\nruntime: docker\n"
    "container: {memory: 1g, cpus: 2, pids: 9, ulimits: {core: {soft: 0, hard: 0}}}\n"
)
FLAGS = options(
    command=("true",), name="of-flag", grants=("aws", "aws"), env={"A": "flag"}, mounts=(Mount(Path("/x"), "/data"),),
    policy="permissive", allowed=("a.example",), rules=("deny a.example",), runtime="bubblewrap", image="of-flag",
    profile="work",
)  # fmt: skip
OWN = settings("strict", "deny c.example", runtime="process", image="of-settings")


def told(spec: RunSpec) -> dict[str, object]:
    return {
        "command": spec.command, "name": spec.name, "policy": spec.policy.mode, "runtime": spec.runtime,
        "image": spec.image, "profile": spec.profile,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("said", "text", "own", "values", "origins"),
    [
        pytest.param(
            options(), "", Settings(),
            {"command": (), "name": "", "policy": "permissive", "runtime": "", "image": DEFAULT_IMAGE, "profile": ""},
            {"policy": "default", "runtime": "default", "image": "default", "profile": "default"},
            id="nobody says anything",
        ),
        pytest.param(
            options(), "", OWN,
            {"policy": "strict", "runtime": "process", "image": "of-settings"},
            {"policy": "config.yaml", "runtime": "config.yaml", "image": "config.yaml"},
            id="only the settings",
        ),
        pytest.param(
            options(), WHOLE, OWN,
            {"command": ("make",), "name": "of-file", "policy": "strict", "runtime": "docker", "image": "of-file"},
            dict.fromkeys(("command", "name", "policy", "runtime", "image"), "moat.yaml"),
            id="the file before the settings",
        ),
        pytest.param(
            FLAGS, WHOLE, OWN,
            {"command": ("true",), "name": "of-flag", "policy": "permissive", "runtime": "bubblewrap",
             "image": "of-flag", "profile": "work"},
            {"command": "command line", "name": "--name", "policy": "--policy", "runtime": "--runtime",
             "image": "--image", "profile": "--profile"},
            id="the command line before all",
        ),
        pytest.param(
            options(), "network: {policy: permissive}", OWN, {"policy": "permissive"}, {"policy": "moat.yaml"},
            id="the file may ask for more than the settings, which is for others to judge",
        ),
    ],
)  # fmt: skip
def test_single_values_are_those_of_the_first_who_says_something(
    said: Options, text: str, own: Settings, values: dict[str, object], origins: dict[str, str]
) -> None:
    spec = joined(text, said, own)

    assert told(spec) | values == told(spec)
    assert dict(spec.origins) | origins == spec.origins


def test_lists_are_joined_and_each_entry_knows_its_owner() -> None:
    spec = joined(WHOLE, FLAGS, OWN)

    assert spec.grants == ("aws", "github")
    assert (spec.origins["grant.aws"], spec.origins["grant.github"]) == ("--grant", "moat.yaml")
    assert spec.policy.allow == ("a.example", "b.example")
    assert (spec.origins["allow.a.example"], spec.origins["allow.b.example"]) == ("--allow-host", "moat.yaml")


def test_rules_keep_the_order_of_those_who_asked() -> None:
    spec = joined(WHOLE, FLAGS, OWN)

    lines = [rule_text(rule) for rule in spec.policy.rules]
    assert lines == ["deny * a.example", "deny * b.example", "deny * c.example"]
    assert [spec.origins[f"rule.{line}"] for line in lines] == ["--rule", "moat.yaml", "config.yaml"]


def test_variables_are_joined_by_name_and_mounts_by_target() -> None:
    spec = joined(WHOLE, FLAGS, OWN)

    assert spec.env == {"A": "flag", "B": "file", "S": ""}
    assert [spec.origins.get(f"env.{name}") for name in spec.env] == [None, "moat.yaml", "moat.yaml, env://X"]
    assert spec.mounts == (Mount(Path("/x"), "/data"), Mount(USER_HOME / "more", "/more", read_only=True))
    assert joined(WHOLE).mounts[0] == Mount(WORK / "data", "/data")
    assert joined("mounts: [{source: /y, target: /data//}]", FLAGS).mounts == FLAGS.mounts


def test_dependencies_are_the_files_in_an_order_of_their_own() -> None:
    spec = joined("dependencies: [pip:b, node@22, apt:aa, pip:b]")

    assert spec.dependencies == ("apt:aa", "node@22", "pip:b")
    assert spec.origins["dependency.node@22"] == "moat.yaml"
    assert joined("").dependencies == ()


def test_what_is_run_in_an_image_is_the_files() -> None:
    spec = joined("hooks: {post_build: touch /made}")

    assert (spec.post_build, spec.origins["post_build"]) == ("touch /made", "moat.yaml")
    assert "post_build" not in joined("").origins


def test_limits_are_the_files() -> None:
    spec = joined(WHOLE)

    assert spec.limits == Limits(1 << 30, 2.0, 9, {"core": (0, 0)})
    assert spec.origins["limit.ulimits.core"] == "moat.yaml"
    assert joined("").limits == Limits()


def test_a_secret_is_a_reference_until_it_is_fetched_and_an_option_makes_it_needless() -> None:
    assert secret_of(joined(WHOLE), "S") == "env://X"
    assert secret_of(joined(WHOLE), "A") == ""
    assert secret_of(joined(WHOLE, options(env={"S": "mine"})), "S") == ""


def test_without_a_file_nothing_is_the_files() -> None:
    spec = merged(FLAGS, None, OWN, USER_HOME)

    assert "moat.yaml" not in spec.origins.values()
    assert spec.mounts == FLAGS.mounts


def test_a_rule_that_is_none_is_told_with_its_file() -> None:
    with pytest.raises(UsageError, match=r"moat\.yaml: network\.rules: "):
        joined("network: {rules: [allow GET /path]}")
    with pytest.raises(UsageError, match="names no host"):
        joined("", options(rules=("allow GET /path",)))


def test_a_host_that_is_none_is_told_with_its_file() -> None:
    with pytest.raises(UsageError, match=r"moat\.yaml: network\.allow: 'https://a\.example' is no host pattern"):
        joined("network: {allow: ['https://a.example']}")


def test_what_options_set_is_not_shown_by_accident() -> None:
    assert "s3cr3t" not in repr(options(env={"A": "s3cr3t"}))


def test_servers_and_ports_are_the_files() -> None:
    spec = joined("ports: {web: 3000}\nmcp: [{name: m, url: 'https://a.example/x', grant: g, tools: [t]}]")

    assert (spec.ports, spec.published) == ({"web": 3000}, {})
    chosen = joined("ports: {web: {port: 3000, publish: 13000}, api: 4000}")
    assert (chosen.ports, chosen.published) == ({"web": 3000, "api": 4000}, {"web": 13000})
    assert spec.mcp == (McpServer("m", "https://a.example/x", "g", "Authorization", ("t",)),)
    assert (spec.origins["port.web"], spec.origins["mcp.m"]) == ("moat.yaml", "moat.yaml")


def test_volumes_are_joined_by_name_and_place() -> None:
    text = (
        "volumes: {a: /a, b: /b, c: /data, d: /x//}\nmounts: [{source: m, target: /of-flag}, {source: n, target: /n}]"
    )
    spec = joined(text, options(volumes={"b": "/other", "x": "/of-flag"}, mounts=FLAGS.mounts))

    assert spec.volumes == {"a": "/a", "d": "/x", "b": "/other", "x": "/of-flag"}
    assert [spec.origins[f"volume.{name}"] for name in "abx"] == ["moat.yaml", "--volume", "--volume"]
    assert [mount.target for mount in spec.mounts] == ["/data", "/n"]


def test_what_is_hidden_is_joined_and_each_pattern_knows_its_owner() -> None:
    mounts = "[{source: x, target: /x, exclude: [k]}, {source: y, target: /data, exclude: [k]}]"
    text = f"workspace: {{exclude: [b, a]}}\nmounts: {mounts}"
    own = settings(workspace=WorkspaceSettings(("c", "b")))
    spec = joined(text, options(excluded=("a", "d"), mounts=FLAGS.mounts), own)

    assert spec.hidden == {"/workspace": ("a", "d", "b", "c"), "/x": ("k",)}
    assert [spec.origins[f"exclude./workspace:{name}"] for name in "adbc"] == [
        "--exclude", "--exclude", "moat.yaml", "config.yaml"
    ]  # fmt: skip
    assert spec.origins["exclude./x:k"] == "moat.yaml"
    assert merged(options(), None, own, USER_HOME).hidden == {"/workspace": ("c", "b")}
    assert joined("").hidden == {}


def test_what_is_run_before_a_command_is_the_files() -> None:
    spec = joined("hooks: {pre_run: [a, b]}", FLAGS)

    assert (spec.pre_run, spec.origins["pre_run"]) == (("a", "b"), "moat.yaml")
    assert "pre_run" not in joined("").origins


def test_ports_of_this_machine_are_joined_and_a_name_is_an_options_first() -> None:
    said = options(host_ports=(HostPort(1, "db"), HostPort(2), HostPort(2)))
    spec = joined("network: {host_ports: {db: 5432, cache: 6379, 2: 2}}", said)

    assert spec.host_ports == (HostPort(1, "db"), HostPort(2), HostPort(6379, "cache"))
    assert spec.origins["host_port.db.host.moat.internal:1"] == "--host-port"
    assert spec.origins["host_port.host.moat.internal:2"] == "--host-port"
    assert spec.origins["host_port.cache.host.moat.internal:6379"] == "moat.yaml"


def test_services_are_joined_and_a_name_is_an_options_first() -> None:
    said = options(services=(known_service("postgres@16", "db"),))
    spec = joined("services: {db: mysql, cache: redis}", said)

    assert [(each.name, each.image) for each in spec.services] == [("db", "postgres:16"), ("cache", "redis:7")]
    assert (spec.origins["service.db"], spec.origins["service.cache"]) == ("--service", "moat.yaml")
    alone = merged(said, None, Settings(), USER_HOME)
    assert (alone.services, alone.origins["service.db"]) == (said.services, "--service")


def test_services_of_both_that_cannot_stand_together_are_refused() -> None:
    with pytest.raises(UsageError, match="cache and more both want port 6379"):
        joined("services: {cache: redis}", options(services=(known_service("redis", "more"),)))


def test_bodies_are_traced_where_the_user_or_the_file_says_so() -> None:
    by_file = joined("trace: {bodies: true}")
    by_settings = joined("trace: {bodies: false}", own=Settings(trace=TraceSettings(bodies=True)))

    assert (by_file.trace_bodies, by_file.origins["trace"]) == (True, "moat.yaml")
    assert (by_settings.trace_bodies, by_settings.origins["trace"]) == (True, "config.yaml")
    by_flag = joined("trace: {bodies: false}", options(trace_bodies=True))
    assert (by_flag.trace_bodies, by_flag.origins["trace"]) == (True, "--trace-bodies")
    assert not joined("").trace_bodies


@pytest.mark.parametrize(
    ("text", "said", "interactive", "times", "owners"),
    [
        ("", {}, None, SnapshotTimes(), {}),
        ("interactive: true\nsnapshots: {before: true, every: 10m}", {}, True, SnapshotTimes(True, 600),
         dict.fromkeys(("interactive", "snapshots.before", "snapshots.every"), "moat.yaml")),
        ("interactive: auto\nsnapshots: {before: false}", {}, None, SnapshotTimes(), {"snapshots.before": "moat.yaml"}),
        ("interactive: true\nsnapshots: {before: true, every: 10m}",
         {"interactive": False, "snapshot": False, "snapshot_every_s": 5}, False, SnapshotTimes(False, 5),
         {"interactive": "--tty", "snapshots.before": "--snapshot", "snapshots.every": "--snapshot-every"}),
    ],
)  # fmt: skip
def test_how_a_run_is_held_is_what_the_first_says(
    text: str, said: dict[str, object], interactive: bool | None, times: SnapshotTimes, owners: dict[str, str]
) -> None:
    spec = joined(text, options(**said))

    assert (spec.interactive, spec.snapshots) == (interactive, times)
    keys = ("interactive", "snapshots.before", "snapshots.every")
    assert {key: owner for key, owner in spec.origins.items() if key in keys} == owners
