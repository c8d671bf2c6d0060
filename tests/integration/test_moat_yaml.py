"""A real `moat run` does what the workspace's moat.yaml says, in both runtimes, and is held to its limits."""

from __future__ import annotations

import itertools
import json
import socket
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from support.installation import Installation, end, eventually, installation
from support.places import docker_answers
from support.ports import free_port
from support.upstream import running_upstream

pytestmark = pytest.mark.timeout(120)
DOCKER = (
    pytest.mark.docker,
    pytest.mark.skipif(not docker_answers(), reason="no container engine with the image"),
)
RUNTIMES = [pytest.param("docker", marks=DOCKER), pytest.param("bubblewrap", marks=pytest.mark.bubblewrap)]
_NUMBERS = itertools.count(1)


@pytest.fixture(scope="module")
def made() -> Iterator[Installation]:
    with installation() as made:
        made.file("fixtures/one", "of the host\n")
        yield made


def workspace(made: Installation, settings: Mapping[str, object]) -> Path:
    """Make a workspace whose moat.yaml says so; JSON is YAML."""
    return made.file(f"work{next(_NUMBERS)}/moat.yaml", json.dumps(settings)).parent


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_everything_that_a_file_says_is_so_inside(made: Installation, runtime: str) -> None:
    script = "echo $CI $SECRET; cat /fixtures/one; touch /fixtures/two; ulimit -n; ulimit -Hn; hostname"
    work = workspace(
        made,
        {
            "name": "of-the-file",
            "command": ["sh", "-c", script],
            "env": {"CI": "yes"},
            "secrets": {"SECRET": "cmd://printf %s word"},
            "mounts": [{"source": "../fixtures", "target": "/fixtures", "read_only": True}],
            "network": {"policy": "strict"},
            "container": {"ulimits": {"nofile": {"soft": 64, "hard": 128}}},
        },
    )

    done = made.run("run", work, "--yes", env={"MOAT_RUNTIME": runtime})

    assert done.stdout.decode().splitlines()[:4] == ["yes word", "of the host", "64", "128"], done.stderr
    assert b"cannot touch '/fixtures/two'" in done.stderr
    assert f"moat: of-the-file · {runtime} · strict · no grants · moat.yaml · sealed".encode() in done.stderr
    assert not (made.home / "fixtures" / "two").exists()


@pytest.mark.parametrize("runtime", [RUNTIMES[0]])
def test_a_container_is_held_to_its_limits(made: Installation, runtime: str) -> None:
    limits = {"memory": "64m", "cpus": 0.5, "pids": 24}
    work = workspace(made, {"container": limits})

    def run(script: str) -> tuple[int, str]:
        done = made.run("run", work, "--", "sh", "-c", script, env={"MOAT_RUNTIME": runtime})
        return done.returncode, done.stdout.decode() + done.stderr.decode()

    code, _ = run("head -c 300m /dev/zero | tail")
    told = run("cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us /sys/fs/cgroup/cpu.max 2>/dev/null; true")[1]
    forks = run("for i in $(seq 40); do sleep 5 & done; jobs | wc -l")[1]

    assert code == 137
    assert told.startswith("50000")
    assert "Cannot fork" in forks


@pytest.mark.bubblewrap
def test_a_limit_that_cannot_be_held_is_refused_before_anything_is_there(made: Installation) -> None:
    work = workspace(made, {"command": ["true"], "container": {"memory": "1g", "cpus": 1}})
    before = json.loads(made.ok("list", "--json"))

    done = made.run("run", work, env={"MOAT_RUNTIME": "bubblewrap"})

    assert done.returncode == 1
    assert b"bubblewrap cannot hold a run to a limit of memory, cpus here" in done.stderr
    assert b"--runtime docker" in done.stderr
    assert json.loads(made.ok("list", "--json")) == before


@pytest.mark.bubblewrap
def test_what_was_granted_once_is_not_asked_for_again(made: Installation) -> None:
    work = workspace(made, {"command": ["cat", "/o/one"], "mounts": [{"source": "../fixtures", "target": "/o"}]})
    env = {"MOAT_RUNTIME": "bubblewrap"}

    codes = [made.run("run", work, *words, env=env).returncode for words in ((), ("--yes",), ())]

    assert codes == [2, 0, 0]


@pytest.mark.bubblewrap
def test_the_first_example_of_the_documentation_does_what_it_says(made: Installation) -> None:
    page = Path(__file__).parents[2] / "docs" / "moat-yaml.md"
    text = page.read_text().split("```yaml\n")[1].split("```")[0]
    work = made.file("of-the-page/moat.yaml", text).parent

    assert made.ok("run", work, env={"MOAT_RUNTIME": "bubblewrap"}) == "hello from /workspace\n"


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_hooks_run_inside_before_the_command_and_one_that_fails_ends_the_run(made: Installation, runtime: str) -> None:
    hooks = [
        "echo $GREETING from $(pwd) > made",
        "cat made; grep -q stop made && exit 7; ! curl -sf -m 5 http://1.1.1.1/",
    ]
    work = workspace(made, {"env": {"GREETING": "hello"}, "hooks": {"pre_run": hooks}, "network": {"policy": "strict"}})
    env = {"MOAT_RUNTIME": runtime}

    done = made.run("run", work, "--", "sh", "-c", "cat; cat made", input=b"input\n", env=env)
    failed = made.run("run", work, "-e", "GREETING=stop", "--", "echo", "never", env=env)
    last = json.loads(made.ok("list", "-a", "--json"))[0]

    assert (done.returncode, done.stdout) == (0, b"hello from /workspace\ninput\nhello from /workspace\n"), done.stderr
    assert (failed.returncode, failed.stdout) == (7, b"stop from /workspace\n"), failed.stderr
    assert b"moat: hooks.pre_run 2 of 2 ended with 7, so the command was not run: cat made; grep" in failed.stderr
    assert (last["exit_code"], last["command"]) == (7, ["echo", "never"])


@pytest.mark.bubblewrap
def test_a_workspace_is_kept_before_and_while_a_run_works_and_the_run_has_its_terminal(made: Installation) -> None:
    script = "stty size > size; while [ ! -e stop ]; do sleep 0.05; done"
    said = {"name": "kept", "interactive": True, "snapshots": {"before": True, "every": "1s"}}
    work = workspace(made, {**said, "command": ["sh", "-c", script]})
    made.ok("run", "-d", work, env={"MOAT_RUNTIME": "bubblewrap"})

    def kept() -> set[str]:
        return {each["message"] for each in json.loads(made.ok("snapshot", "list", work, "--json"))}

    eventually("the workspace was kept while the run worked", lambda: "during kept" in kept(), 30)
    (work / "stop").touch()
    made.run("wait", "kept")

    assert kept() == {"before kept", "during kept"}
    assert (work / "size").read_text() == "24 80\n"


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_port_of_the_file_is_reached_while_the_run_lives(made: Installation, runtime: str) -> None:
    port, chosen = free_port(), free_port()
    made.run("proxy", "stop")
    made.configure({"routing": {"port": port}})
    script = "perl -MIO::Socket::INET -e '$s = IO::Socket::INET->new(LocalPort => 3000, Listen => 1); $| = 1; \
        print qq(ready\\n); for (1, 2) { $c = $s->accept; <$c>; print $c qq(HTTP/1.0 200 OK\\r\\n\\r\\nit is me); \
        close $c }'"
    ports = {"web": {"port": 3000, "publish": chosen}}
    work = workspace(made, {"name": f"routed-{runtime}", "command": ["sh", "-c", script], "ports": ports})
    process = made.start("run", work, "--yes", env={"MOAT_RUNTIME": runtime})
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        url = f"http://web.routed-{runtime}.localhost:{port}/"
        _open_in_a_browser(made, f"routed-{runtime}", url)
        _shown_where_it_is(made, f"routed-{runtime}", chosen)
        for address in (f"127.0.0.1:{chosen}", url):
            answer = subprocess.run(["curl", "-sS", "-m", "20", address], capture_output=True, check=False)
            assert answer.stdout == b"it is me", answer.stderr
        _, err = process.communicate(timeout=30)
        assert f"{url} (127.0.0.1:{chosen})".encode() in err
        eventually("the published port is closed", lambda: _is_refused(chosen), 30)
    finally:
        end(process)


def _shown_where_it_is(made: Installation, run: str, chosen: int) -> None:
    """Have every command that shows ports say where one is published."""
    (listed,) = (each for each in json.loads(made.ok("list", "--json")) if each["name"] == run)
    ((opened,), status) = json.loads(made.ok("open", run, "--json")), json.loads(made.ok("status", "--json"))
    ((told,),) = (each["ports"] for each in status["runs"] if each["name"] == run)
    assert listed["ports"][0]["published"] == opened["published"] == told["published"] == f"127.0.0.1:{chosen}"
    assert f"127.0.0.1:{chosen}" in made.ok("status")


def _is_refused(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) != 0


def _open_in_a_browser(made: Installation, run: str, url: str) -> None:
    """Have `moat open` find the one port, by any way of naming it, and start a browser with its address."""
    seen = made.home / "seen"
    browser = made.file("browser", f"#!/bin/sh\necho $1 >> {seen}\n", 0o755)
    for words in ((), (run,), (run, "web"), (run, "3000")):
        assert made.ok("open", *words, env={"BROWSER": f"{browser} %s"}) == f"{url}\n"
    assert seen.read_text() == f"{url}\n" * 4
    seen.unlink()
    assert made.ok("open", "--print") == f"{url}\n"
    ((told),) = json.loads(made.ok("open", run, "--json"))
    assert (told["name"], told["port"], told["url"]) == ("web", 3000, url)
    assert b"has no port 'api', only web" in made.run("open", run, "api").stderr
    done = made.run("open", run, env={"BROWSER": "/bin/false %s", "PATH": "/nowhere"})
    assert (done.returncode, done.stdout) == (1, f"{url}\n".encode())
    assert b"error: no browser can be started here" in done.stderr


@pytest.mark.bubblewrap
def test_an_mcp_server_of_the_file_is_relayed_with_the_credential(made: Installation) -> None:
    secret = "s3cr3t-of-mcp"
    with running_upstream(authorization=f"Bearer {secret}") as upstream:
        made.run("proxy", "stop")
        made.file("roots.pem", upstream.ca_pem)
        pins = {"ca_bundle": str(made.home / "roots.pem"), "resolve": upstream.pins("mcp.example.com")}
        made.configure({"upstream": {**pins, "allow_cidrs": ["127.0.0.0/8"]}})
        made.grant("github", secret)
        server = {"name": "demo", "url": "https://mcp.example.com/echo", "grant": "github"}
        ask = "curl -sS --noproxy '*' -o /dev/null -w '%{http_code}' http://127.0.0.1:19080/mcp/demo"
        work = workspace(made, {"command": ["sh", "-c", ask], "mcp": [server], "network": {"policy": "strict"}})

        said = made.ok("run", work, "--yes", env={"MOAT_RUNTIME": "bubblewrap"})

    assert said == "200"
    assert upstream.seen
