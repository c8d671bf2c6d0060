from __future__ import annotations

from collections.abc import Sequence

import pytest
from moat.api.runs import HostPort
from moat.config.services import known_service
from moat.config.settings import Settings, WorkspaceSettings
from moat.runs.merge import Options
from moat.runs.secrets import Reference
from moat.runs.wishes import Circumstances, one_line, wishes

from core.runs.projects import WORK, a_project, joined, options, settings

STRICT = settings("strict")


def wished(
    text: str, said: Options | None = None, own: Settings | None = None, references: Sequence[Reference] = ()
) -> tuple[str, ...]:
    said, own = said or options(), own or Settings()
    around = Circumstances(said, own, WORK, {"process"})
    return wishes(a_project(text), joined(text, said, own), references, around)


@pytest.mark.parametrize(
    ("text", "own"),
    [
        ("name: x\ncommand: [sh, -c, 'rm -rf /']\nenv: {PATH: /evil, LD_PRELOAD: x.so}", Settings()),
        ("mounts: [{source: ./data, target: /data}, {source: ., target: /again}]", Settings()),
        ("network: {policy: strict, allow: [pypi.org], rules: [allow x.example]}", Settings()),
        ("network: {policy: permissive}", Settings()),
        ("agents: {pal: {model: big, yolo: true}}", Settings()),
        ("agent: pal\ncommand: [make]", Settings()),
        ("network: {rules: [deny x.example]}", settings("strict", "deny *")),
        ("network: {policy: strict}", STRICT),
        ("base_image: debian:bookworm-slim\nruntime: bubblewrap", Settings()),
        ("base_image: mine\nruntime: docker", settings(image="mine", runtime="docker")),
        ("hooks: {pre_run: rm -rf /}\nvolumes: {v: /v}", Settings()),
        ("container: {memory: 16g, cpus: 64, pids: 4096}", Settings()),
    ],
)
def test_what_changes_only_the_inside_or_takes_something_away_needs_no_yes(text: str, own: Settings) -> None:
    assert wished(text, own=own) == ()


@pytest.mark.parametrize(
    ("text", "own", "wish"),
    [
        ("grants: [github]", Settings(), "spend your credential github"),
        ("agent: pal", Settings(), "start the agent pal, and spend your credential that it runs on"),
        ("mounts: [{source: /etc, target: /e}]", Settings(), "read and change /etc, as /e"),
        ("mounts: [{source: ~/.ssh, target: /e, read_only: true}]", Settings(), "read /home/someone/.ssh, as /e"),
        ("mounts: [{source: /srv/workers, target: /e}]", Settings(), "read and change /srv/workers, as /e"),
        ("network: {policy: permissive}", STRICT, "reach every public host, where you say strict"),
        ("network: {allow: [a.example]}", STRICT, "reach a.example, where you say strict"),
        ("network: {rules: [allow a.example]}", STRICT, "let out what your own policy may keep in: allow * a.example"),
        (
            "network: {rules: [allow a.example]}",
            settings("permissive", "deny a.example"),
            "let out what your own policy may keep in: allow * a.example",
        ),
        ("runtime: bubblewrap", settings(runtime="docker"), "use the runtime bubblewrap, where you say docker"),
        ("runtime: odd", Settings(), "use the runtime odd"),
        (
            "mcp: [{name: m, url: 'https://evil.example/mcp', grant: github}]",
            Settings(),
            "send your credential github to https://evil.example/mcp, as the MCP server m",
        ),
        (
            "mcp: [{name: m, url: 'https://a.example/mcp', tools: [x, y]}]",
            Settings(),
            "reach https://a.example/mcp, as the MCP server m to call x, y there",
        ),
        (
            "name: mine\nports: {web: 3000}",
            Settings(),
            "have its port 3000 reached from this machine, as web.mine.localhost and at a free port of 127.0.0.1",
        ),
        (
            "name: mine\nports: {web: {port: 3000, publish: 13000}}",
            Settings(),
            "have its port 3000 reached from this machine, as web.mine.localhost and at 127.0.0.1:13000",
        ),
        (
            "dependencies: [pip:ruff==0.6, node@22]",
            Settings(),
            "have an image built with node@22, pip:ruff==0.6: "
            "their code runs as a sealed container's root, and the image stays",
        ),
        (
            'hooks: {post_build: "useradd app\\nid"}',
            Settings(),
            "run, as root of the sealed container that its image is built in: useradd app\\nid",
        ),
        ("container: {pids: 4097}", Settings(), "have 4097 processes at once, instead of 4096"),
        (
            "container: {ulimits: {nofile: {soft: 1, hard: -1}}}",
            Settings(),
            "set the limit nofile of its processes to 1 (at most -1)",
        ),
    ],
)
def test_what_reaches_beyond_the_sandbox_is_a_wish(text: str, own: Settings, wish: str) -> None:
    assert wished(text, own=own) == (wish,)


def test_an_image_is_another_machine_that_may_hold_anything() -> None:
    (wish,) = wished("base_image: company/internal")

    assert wish.startswith("start the image company/internal, where you say debian:bookworm-slim")


def test_a_secret_says_what_will_be_done_for_it() -> None:
    references = [
        Reference("A", "env", ("TOKEN",)),
        Reference("B", "file", ("/home/someone/.netrc",)),
        Reference("C", "cmd", ("/usr/bin/op", "read", "op://a b")),
    ]

    assert wished("", references=references) == (
        "put your variable TOKEN into the run, as A",
        "put the contents of /home/someone/.netrc into the run, as B",
        "run outside of any sandbox: /usr/bin/op read 'op://a b', and put what it says into the run, as C",
    )


def test_a_runtime_that_isolates_nothing_makes_everything_a_wish() -> None:
    found = wished("runtime: process\ncommand: [sh, -c, id]\nenv: {LD_PRELOAD: x}")

    assert [wish.split(":")[0] for wish in found] == [
        "run without any sandbox (runtime process)",
        "run, outside of any sandbox",
        "set a variable of a command outside of any sandbox",
    ]


@pytest.mark.parametrize(
    ("said", "own"), [(options(runtime="process"), Settings()), (options(), settings(runtime="process"))]
)
def test_so_it_does_where_the_user_chose_it(said: Options, own: Settings) -> None:
    assert wished("command: [sh, -c, id]", said, own) == ("run, outside of any sandbox: sh -c id",)
    assert wished("hooks: {pre_run: id}", said, own) == ("run, outside of any sandbox, before the command: id",)


@pytest.mark.parametrize(
    ("text", "said", "own"),
    [
        ("grants: [github]", options(grants=("github",)), Settings()),
        ("mounts: [{source: /etc, target: /e}]", options(mounts=joined("mounts: [{source: /x, target: /e}]").mounts),
         Settings()),
        ("network: {policy: permissive}", options(policy="strict"), STRICT),
        ("network: {policy: permissive}", options(policy="permissive"), STRICT),
        ("network: {allow: [a.example]}", options(allowed=("a.example",)), STRICT),
        ("network: {rules: [allow a.example]}", options(policy="permissive"), STRICT),
        ("runtime: process", options(runtime="docker"), Settings()),
        ("base_image: x", options(image="y"), Settings()),
        ("command: [id]", options(command=("true",), runtime="process"), Settings()),
        ("env: {A: x}", options(command=("true",), env={"A": "y"}, runtime="process"), Settings()),
    ],
)  # fmt: skip
def test_what_the_user_asks_for_as_well_is_no_wish_of_the_file(text: str, said: Options, own: Settings) -> None:
    assert wished(text, said, own) == ()


@pytest.mark.parametrize(
    "text", ["a\nb", "\x1b[2J", "\x1b[2mdim", "\u202eevil", "\u0435", "\x9b31m", "é", "a\tb", "\x7f"]
)
def test_a_line_is_visible_ascii(text: str) -> None:
    shown = one_line(text)

    assert shown.isascii()
    assert shown.isprintable()
    assert shown != text
    assert one_line("plain words: /a/b") == "plain words: /a/b"


def test_a_credential_of_another_profile_is_another_wish() -> None:
    text = "grants: [github]\nmcp: [{name: m, url: 'https://a.example/x', grant: g}]"

    assert wished(text, options(profile="work")) == (
        "spend your credential github of the profile work",
        "send your credential g of the profile work to https://a.example/x, as the MCP server m",
    )


def test_a_mount_of_what_the_user_hides_needs_a_yes() -> None:
    text = "workspace: {exclude: [own]}\nmounts: [{source: ./own, target: /o}, {source: ./keys/a, target: /k}]"
    wish = f"read and change {WORK}/keys/a, as /k, which you hide from runs"

    assert wished(text) == ()
    assert wished(text, options(excluded=("keys/",))) == (wish,)
    assert wished(text, own=settings(workspace=WorkspaceSettings(("/keys",)))) == (wish,)


def test_a_port_of_this_machine_is_asked_about_but_for_ones_own() -> None:
    said = options(host_ports=(HostPort(6379),))

    assert wished("network: {policy: strict, host_ports: {db: 5432, 6379: 6379}}", said) == (
        "connect to port 5432 of this machine (127.0.0.1), as db.host.moat.internal:5432",
    )


def test_a_service_is_asked_about_but_for_ones_own() -> None:
    said = options(services=(known_service("postgres", "db"),))

    assert wished("services: {db: mysql, cache: {kind: redis, image: 'mine/redis:1'}}", said) == (
        "have the engine run mine/redis:1, fetched if it is not there, as the service cache: it reaches what the run "
        "reaches, and can spend what the run spends",
    )
