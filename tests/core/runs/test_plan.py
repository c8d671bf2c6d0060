from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from moat.api.container import Limits, Mount
from moat.api.errors import PlanConflict, UsageError
from moat.api.runs import HostPort, McpServer, NetworkPolicy, SnapshotTimes, Worktree
from moat.config.services import known_service
from moat.daemon.extras import RoutedPort
from moat.daemon.protocol import SetupResponse
from moat.net.rules import parse_rule
from moat.runs.hooks import after_hooks
from moat.runs.masks import Hidden
from moat.runs.plan import Found, plan
from moat.runs.trust import BUNDLE, DOOR_URL, JAVA, SYSTEM_BUNDLE, TRUST_STORE, java_options
from moat.runs.truststore import trust_store
from support.upstream import make_test_ca

from core.runs.plans import HOME, WORK, a_setup, a_spec, some_facts

DATA = Path("/srv/data")


def test_the_workspace_comes_first_and_is_where_the_command_starts() -> None:
    planned = plan(a_spec("make", "test"), some_facts(paths={WORK: Found(Path("/mnt/real"), "folder")}))

    assert planned.sandbox.mounts[0] == Mount(Path("/mnt/real"), "/workspace")
    assert planned.sandbox.workdir == "/workspace"
    assert planned.sandbox.argv == ("make", "test")
    assert planned.registration.workspace == "/mnt/real"


def test_a_run_has_a_small_environment_of_its_own() -> None:
    env = plan(a_spec(), some_facts(passed={"TERM": "xterm", "LANG": "de_DE.UTF-8"})).sandbox.env

    assert env["HOME"] == "/home/moat"
    assert env["PATH"].startswith("/usr/local/sbin:/usr/local/bin")
    assert env["TERM"] == "xterm"
    assert env["LANG"] == "de_DE.UTF-8"
    assert env["HTTPS_PROXY"] == env["https_proxy"] == DOOR_URL
    assert env["SSL_CERT_FILE"] == BUNDLE


def test_an_image_keeps_its_own_path() -> None:
    facts = some_facts(needs_image=True)

    assert "PATH" not in plan(a_spec(image="golang:1"), facts).sandbox.env
    assert plan(a_spec(image="golang:1"), facts).sandbox.image == "golang:1"
    assert plan(a_spec(image="golang:1"), some_facts()).sandbox.image == ""


def test_a_grant_brings_placeholders_and_files() -> None:
    setup = a_setup({"GH_TOKEN": "placeholder"}, {"/home/moat/.config/gh/hosts.yml": "github.com:\n"})

    planned = plan(a_spec(grants=("github",)), some_facts(setup))

    assert planned.sandbox.env["GH_TOKEN"] == "placeholder"
    assert planned.origins["GH_TOKEN"] == "grant github"
    source = HOME.inside("run_0123456789ab") / "home/moat/.config/gh/hosts.yml"
    assert planned.files[source] == "github.com:\n"
    assert Mount(source, "/home/moat/.config/gh/hosts.yml", read_only=True) in planned.sandbox.mounts


def test_the_bundle_is_written_once_and_seen_twice() -> None:
    planned = plan(a_spec(), some_facts())

    sources = {mount.source for mount in planned.sandbox.mounts if mount.target in (BUNDLE, SYSTEM_BUNDLE)}
    assert len(sources) == 1
    assert sources <= set(planned.files)


def test_java_finds_the_bundle_as_a_trust_store() -> None:
    roots = make_test_ca().pem

    planned = plan(a_spec(), some_facts(roots=roots))

    source = next(mount.source for mount in planned.sandbox.mounts if mount.target == TRUST_STORE)
    assert planned.files[source] == trust_store(roots)
    assert planned.origins[TRUST_STORE] == planned.origins[JAVA] == "moat"


def test_what_others_tell_java_is_kept_and_what_moat_tells_it_comes_last() -> None:
    setup = a_setup({JAVA: "-Dgranted=1"})

    planned = plan(a_spec(env={JAVA: "-Xmx1g -Dhttps.proxyHost=elsewhere"}, grants=("odd",)), some_facts(setup))

    assert planned.sandbox.env[JAVA] == f"-Dgranted=1 -Xmx1g -Dhttps.proxyHost=elsewhere {java_options()}"
    assert planned.origins[JAVA] == "-e"
    assert planned.warnings == ()


def test_what_only_a_grant_tells_java_is_its_own() -> None:
    planned = plan(a_spec(grants=("odd",)), some_facts(a_setup({JAVA: "-Dgranted=1"})))

    assert planned.sandbox.env[JAVA] == f"-Dgranted=1 {java_options()}"
    assert planned.origins[JAVA] == "grant odd"


def test_files_of_ours_are_read_only_and_stand_between_workspace_and_the_users_mounts() -> None:
    facts = some_facts(paths={DATA: Found(DATA, "folder")})

    mounts = plan(a_spec(mounts=(Mount(DATA, "/data"),)), facts).sandbox.mounts

    assert mounts[0].target == "/workspace"
    assert mounts[-1] == Mount(DATA, "/data")
    assert all(mount.read_only for mount in mounts[1:-1])


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "all_proxy", "NO_PROXY", "SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS"])
def test_the_users_own_proxy_and_ca_variables_are_dropped_with_a_warning(name: str) -> None:
    planned = plan(a_spec(env={name: "http://evil:1", "KEPT": "yes"}), some_facts())

    assert planned.sandbox.env.get(name) != "http://evil:1"
    assert planned.sandbox.env["KEPT"] == "yes"
    assert [name in warning for warning in planned.warnings] == [True]
    assert "evil" not in planned.warnings[0]


def test_a_user_may_change_a_default() -> None:
    planned = plan(a_spec(env={"PATH": "/opt/bin", "TERM": "dumb"}), some_facts(passed={"TERM": "xterm"}))

    assert planned.sandbox.env["PATH"] == "/opt/bin"
    assert planned.sandbox.env["TERM"] == "dumb"
    assert planned.origins["PATH"] == "-e"


def test_two_wanting_one_variable_differently_are_both_named() -> None:
    setup = a_setup({"GH_TOKEN": "placeholder"})

    with pytest.raises(PlanConflict, match=r"GH_TOKEN .* grant github and -e"):
        plan(a_spec(grants=("github",), env={"GH_TOKEN": "mine"}), some_facts(setup))


def test_a_grant_cannot_lead_past_the_proxy() -> None:
    with pytest.raises(PlanConflict, match="HTTPS_PROXY"):
        plan(a_spec(grants=("odd",)), some_facts(a_setup({"HTTPS_PROXY": "http://elsewhere"})))


def test_a_grant_cannot_write_over_trust() -> None:
    with pytest.raises(UsageError, match="/etc/moat"):
        plan(a_spec(grants=("odd",)), some_facts(a_setup(files={BUNDLE: "mine"})))


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (Found(DATA, "absent"), "does not exist"),
        (Found(DATA, "socket"), "way out"),
        (Found(DATA, "other"), "way out"),
    ],
    ids=["what is not there", "a socket", "a device or a pipe"],
)
def test_a_mount_is_a_file_or_a_folder(found: Found, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        plan(a_spec(mounts=(Mount(DATA, "/data"),)), some_facts(paths={DATA: found}))


@pytest.mark.parametrize("kind", ["file", "absent", "other"])
def test_a_workspace_is_a_folder(kind: str) -> None:
    with pytest.raises(UsageError, match="workspace"):
        plan(a_spec(), some_facts(paths={WORK: Found(WORK, kind)}))  # type: ignore[arg-type] # parametrised


@pytest.mark.parametrize(
    "resolved",
    [HOME.root, HOME.root / "credentials", HOME.root.parent, Path("/")],
    ids=["moat's folder", "a folder in it", "its parent", "everything"],
)
def test_moats_own_folder_is_never_shown_however_it_was_spelled(resolved: Path) -> None:
    link = Path("/srv/innocent")

    with pytest.raises(UsageError, match="moat's own folder"):
        plan(a_spec(), some_facts(paths={WORK: Found(resolved, "folder")}))
    with pytest.raises(UsageError, match="moat's own folder"):
        plan(a_spec(mounts=(Mount(link, "/data"),)), some_facts(paths={link: Found(resolved, "folder")}))


def test_a_mount_cannot_hide_a_file_of_a_grant() -> None:
    setup = a_setup(files={"/home/moat/.config/gh/hosts.yml": "x"})
    mounts = (Mount(DATA, "/home/moat/.config"),)

    with pytest.raises(PlanConflict, match="would hide"):
        plan(a_spec(grants=("github",), mounts=mounts), some_facts(setup, {DATA: Found(DATA, "folder")}))


def test_two_mounts_cannot_share_a_target() -> None:
    other = Path("/srv/other")
    paths = {DATA: Found(DATA, "folder"), other: Found(other, "folder")}

    with pytest.raises(PlanConflict, match="/data"):
        plan(a_spec(mounts=(Mount(DATA, "/data"), Mount(other, "/data"))), some_facts(paths=paths))


def test_a_grants_mount_is_checked_like_the_users() -> None:
    setup = SetupResponse(mounts=(("/srv/tools", "/etc/ssl", True),))

    with pytest.raises(UsageError, match="/etc/ssl"):
        plan(a_spec(grants=("odd",)), some_facts(setup))


def test_the_registration_says_what_the_run_may_do() -> None:
    policy = NetworkPolicy("strict", ("example.com",))

    registration = plan(a_spec("curl", grants=("github",), policy=policy), some_facts()).registration

    assert registration.run_id == "run_0123456789ab"
    assert registration.grants == ("github",)
    assert (registration.network_policy, registration.network_allow) == ("strict", ("example.com",))
    assert registration.needs_door
    assert not plan(a_spec(), some_facts(is_sealed=False)).registration.needs_door
    assert not registration.trace_bodies
    assert plan(replace(a_spec(), trace_bodies=True), some_facts()).registration.trace_bodies


@pytest.mark.parametrize("name", ["", "A B", "1A", "a=b", "É"])
def test_a_variable_has_a_name(name: str) -> None:
    with pytest.raises(UsageError):
        plan(a_spec(env={name: "x"}), some_facts())


def test_there_is_a_command() -> None:
    with pytest.raises(UsageError, match="no command"):
        plan(a_spec(""), some_facts())


def test_network_rules_are_registered_as_lines() -> None:
    policy = NetworkPolicy(rules=(parse_rule("allow GET x.org/a"),))

    assert plan(a_spec("curl", policy=policy), some_facts()).registration.network_rules == ("allow GET x.org/a",)


def test_what_a_file_wants_is_told_apart_from_what_an_option_wants() -> None:
    origins = {"env.FILE": "moat.yaml", "env.SECRET": "moat.yaml, env://X", "mount./data": "moat.yaml"}
    spec = a_spec(env={"FLAG": "1", "FILE": "2", "SECRET": "3"}, mounts=(Mount(DATA, "/data"),))

    planned = plan(replace(spec, origins=origins), some_facts(paths={DATA: Found(DATA, "folder")}))

    assert [planned.origins[key] for key in ("FLAG", "FILE", "SECRET", "/data")] == [
        "-e", "moat.yaml", "moat.yaml, env://X", "moat.yaml"
    ]  # fmt: skip


def test_a_variable_of_a_file_cannot_lead_past_the_proxy_either() -> None:
    spec = replace(a_spec(env={"HTTPS_PROXY": "x"}), origins={"env.HTTPS_PROXY": "moat.yaml"})

    planned = plan(spec, some_facts())

    assert planned.sandbox.env["HTTPS_PROXY"] == DOOR_URL
    assert planned.warnings[0].startswith("moat.yaml HTTPS_PROXY is dropped")


def test_a_mount_of_a_file_that_has_become_a_link_since_it_was_looked_at_is_refused() -> None:
    spec = replace(a_spec(mounts=(Mount(DATA, "/data"),)), origins={"mount./data": "moat.yaml"})
    paths = {DATA: Found(Path("/root/.ssh"), "folder")}

    with pytest.raises(UsageError, match="has become a link"):
        plan(spec, some_facts(paths=paths))

    assert plan(a_spec(mounts=spec.mounts), some_facts(paths=paths)).sandbox.mounts[-1].source == Path("/root/.ssh")


def test_limits_reach_the_sandbox() -> None:
    limits = Limits(memory_bytes=1 << 30)

    assert plan(replace(a_spec(), limits=limits), some_facts()).sandbox.limits == limits


def test_servers_and_ports_are_registered() -> None:
    server = McpServer("m", "https://a.example/x")

    spec = replace(a_spec(), mcp=(server,), ports={"web": 3000, "api": 4000}, published={"api": 14000})
    registration = plan(spec, some_facts()).registration

    assert registration.mcp_servers == (server,)
    assert registration.endpoints == (RoutedPort("web", 3000), RoutedPort("api", 4000, 14000))


@pytest.mark.parametrize("lacking", ["is_sealed", "has_door"])
def test_a_port_without_a_door_is_refused_rather_than_forgotten(lacking: str) -> None:
    with pytest.raises(UsageError, match="bubblewrap can be reached by name"):
        plan(replace(a_spec(), ports={"web": 3000}), some_facts(None, None, **{lacking: False}))


def test_in_a_worktree_git_finds_a_repository_of_the_runs_own_and_the_users_objects_to_read() -> None:
    worktree = Worktree(Path("/srv/project/.git"), Path("/srv/project/.git/worktrees/topic"), "topic")
    planned = plan(replace(a_spec(), worktree=worktree), some_facts())

    mounts = {mount.target: mount for mount in planned.sandbox.mounts}
    assert planned.worktree == worktree
    own = Path("/home/someone/.moat-copies/run_0123456789ab.own/repository.git")
    assert mounts["/repository.git"] == Mount(own, "/repository.git")
    assert mounts["/repository.objects"] == Mount(
        Path("/srv/project/.git/objects"), "/repository.objects", read_only=True
    )
    assert mounts["/workspace/.git"].read_only
    assert planned.files[mounts["/workspace/.git"].source] == "gitdir: /repository.git\n"
    assert planned.origins["/repository.git"] == "worktree topic"


def test_a_worktree_is_refused_where_nothing_keeps_a_run_from_the_repository_and_on_a_copy() -> None:
    spec = replace(a_spec(), worktree=Worktree(Path("/srv/.git"), Path("/srv/.git/worktrees/x"), "x"))

    with pytest.raises(UsageError, match="cannot keep a run from the repository"):
        plan(spec, some_facts(is_sealed=False))
    with pytest.raises(UsageError, match="a worktree is a copy already"):
        plan(replace(spec, on_a_copy=True), some_facts())


HIDDEN = {"/workspace": (Hidden("b", "folder", "b"), Hidden("a/.env", "file", ".env"))}


def test_something_empty_lies_over_what_is_hidden() -> None:
    spec = replace(a_spec(), hidden={"/workspace": ("b", ".env")})

    planned = plan(spec, some_facts(hidden=HIDDEN))

    place = HOME.inside("run_0123456789ab") / ".hidden"
    assert planned.sandbox.mounts[-2:] == (
        Mount(place / "folder-0", "/workspace/b"),
        Mount(place / "file", "/workspace/a/.env", read_only=True),
    )
    assert planned.folders == (place / "folder-0",)
    assert planned.files[place / "file"] == ""
    assert planned.hidden == {"/workspace/b": "b", "/workspace/a/.env": ".env"}
    assert planned.left_out == ()


def test_what_is_hidden_is_left_out_of_a_copy() -> None:
    spec = replace(a_spec(), hidden={"/workspace": ("b", ".env")}, on_a_copy=True)

    planned = plan(spec, some_facts(hidden=HIDDEN, is_sealed=False))

    assert planned.left_out == ("b", "a/.env")
    assert planned.hidden == {}


@pytest.mark.parametrize(("target", "on_a_copy"), [("/workspace", False), ("/data", True)])
def test_a_runtime_that_hides_nothing_is_refused(target: str, on_a_copy: bool) -> None:
    spec = replace(a_spec(), hidden={target: (".env",)}, on_a_copy=on_a_copy)

    with pytest.raises(UsageError, match="hides nothing"):
        plan(spec, some_facts(is_sealed=False))


def test_a_volume_is_the_workspaces_own() -> None:
    spec = replace(a_spec(), volumes={"cache": "/c"}, origins={"volume.cache": "moat.yaml"})

    planned = plan(spec, some_facts())

    assert planned.sandbox.mounts[-1] == Mount(HOME.volumes_of(WORK) / "cache", "/c")
    assert planned.origins["/c"] == "moat.yaml"
    assert planned.volumes == {"cache": "/c"}
    assert HOME.volumes_of(WORK) != HOME.volumes_of(WORK / "sub")
    with pytest.raises(UsageError, match="has no volumes"):
        plan(spec, some_facts(is_sealed=False))


def test_a_volume_cannot_be_had_by_a_mount() -> None:
    path = HOME.volumes_of(Path("/srv/other")) / "cache"

    with pytest.raises(UsageError, match="is moat's own folder"):
        plan(a_spec(mounts=(Mount(path, "/c"),)), some_facts(paths={path: Found(path, "folder")}))


def test_hooks_come_before_the_command_and_are_no_part_of_its_record() -> None:
    planned = plan(replace(a_spec("make"), pre_run=("npm ci",)), some_facts())

    assert planned.sandbox.argv == after_hooks(("npm ci",), ("make",))
    assert planned.registration.command == ("make",)


def test_ports_of_this_machine_are_registered_and_wanted_only_where_they_are_closed() -> None:
    spec = replace(a_spec(), host_ports=(HostPort(5432, "db"),))

    assert plan(spec, some_facts()).registration.host_ports == (HostPort(5432, "db"),)
    with pytest.raises(UsageError, match="keeps no port of this machine"):
        plan(spec, some_facts(is_sealed=False))


def test_services_stand_beside_and_their_variables_give_way() -> None:
    spec = replace(a_spec(env={"DATABASE_URL": "mine"}), services=(known_service("postgres", "db"),))

    made = plan(spec, some_facts(passwords={"db": "s3cr3t"}))

    (sidecar,) = made.sandbox.services
    assert (sidecar.name, sidecar.env["POSTGRES_PASSWORD"]) == ("db", "s3cr3t")
    assert (made.sandbox.env["DATABASE_URL"], made.origins["DATABASE_URL"]) == ("mine", "-e")
    assert (made.sandbox.env["PGPASSWORD"], made.origins["PGPASSWORD"]) == ("s3cr3t", "service db")
    assert "s3cr3t" not in repr(made)


def test_the_workspace_is_kept_while_a_run_works_unless_it_works_on_a_copy() -> None:
    spec = replace(a_spec(), snapshots=SnapshotTimes(every_s=60))

    assert plan(spec, some_facts()).snapshot_every_s == 60
    assert plan(replace(spec, on_a_copy=True), some_facts()).snapshot_every_s == 0
