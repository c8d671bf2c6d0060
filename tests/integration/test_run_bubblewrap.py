"""The real `moat run` in bubblewrap, from a clean environment, with a real client and a credential."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator

import pytest
from support.installation import Done, Installation, installation
from support.upstream import Upstream, running_upstream

pytestmark = [pytest.mark.bubblewrap, pytest.mark.timeout(90)]

URL = "https://api.github.com/user"
SECRET = "ghp_s3cr3t"


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with running_upstream(authorization=f"Bearer {SECRET}") as running:
        yield running


@pytest.fixture(scope="module")
def moat(upstream: Upstream) -> Iterator[Installation]:
    with installation() as made:
        (made.home / "work").mkdir()
        (made.home / "roots.pem").write_text(upstream.ca_pem)
        made.configure(
            {
                "runtime": "bubblewrap",
                "upstream": {
                    "ca_bundle": str(made.home / "roots.pem"),
                    "resolve": upstream.pins("api.github.com", "pypi.example.org"),
                    "allow_cidrs": ["127.0.0.0/8"],
                },
            }
        )
        made.grant("github", SECRET)
        yield made


def run(moat: Installation, *words: str, options: tuple[str, ...] = ("--grant", "github"), input: bytes = b"") -> Done:
    return moat.run("run", "work", *options, "--", *words, input=input)


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(("curl", "-sS", URL), id="a client that reads the proxy variables"),
        pytest.param(("curl", "-sS", "--noproxy", "*", URL), id="one that is told to ignore them"),
        pytest.param(("env", "-i", "/usr/bin/curl", "-sS", URL), id="one that was given no variable at all"),
        pytest.param(("wget", "-q", "-O", "-", URL), id="wget, which reads its own file for roots"),
    ],
)
def test_a_client_gets_through_with_the_credential_that_it_never_has(
    moat: Installation, upstream: Upstream, words: tuple[str, ...]
) -> None:
    before = len(upstream.seen)

    done = run(moat, *words)

    assert (done.returncode, json.loads(done.stdout)["ok"]) == (0, True), done.stderr
    assert len(upstream.seen) == before + 1
    assert SECRET.encode() not in done.stdout + done.stderr


def test_without_the_grant_the_service_says_no(moat: Installation) -> None:
    done = run(moat, "curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", URL, options=())

    assert done.stdout == b"401"


def test_strict_policy_refuses_and_the_end_line_says_what_to_add(moat: Installation) -> None:
    command = ("curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", "https://pypi.example.org/")

    refused = run(moat, *command, options=("--policy", "strict"))
    allowed = run(moat, *command, options=("--policy", "strict", "--allow-host", "pypi.example.org"))

    assert b"403" in refused.stderr + refused.stdout
    assert "1 denied · to allow: --allow-host pypi.example.org" in refused.stderr.decode().splitlines()[-1]
    assert allowed.stdout == b"401"


def test_input_output_and_exit_code_are_the_commands(moat: Installation) -> None:
    done = run(moat, "sh", "-c", "cat; echo err >&2; exit 3", input=b"in\0put")

    assert (done.stdout, done.returncode) == (b"in\0put", 3)
    assert b"err\n" in done.stderr


def test_the_run_sees_the_workspace_a_home_of_its_own_and_little_else(moat: Installation) -> None:
    (moat.home / "work" / "file").write_text("here")

    done = run(moat, "sh", "-c", "pwd; cat file; echo $HOME; echo $USER; ls -A $HOME; ls /root; env")

    assert b"/workspace\nhere/home/moat\nmoat\n" in done.stdout
    assert b"GH_TOKEN=" in done.stdout
    assert b"MOAT_HOME" not in done.stdout
    assert SECRET.encode() not in done.stdout


def test_a_mount_is_read_only_when_asked(moat: Installation) -> None:
    moat.file("data/x", "1")

    done = run(moat, "sh", "-c", "cat /data/x; echo 2 > /data/x", options=("--mount", "data:/data:ro"))

    assert done.stdout == b"1"
    assert done.returncode != 0


def test_the_home_itself_is_no_workspace_since_it_holds_moats_folder(moat: Installation) -> None:
    done = moat.run("run", "--", "true")

    assert done.returncode == 2
    assert b"moat's own folder" in done.stderr


def test_the_run_is_traced(moat: Installation) -> None:
    run(moat, "curl", "-sS", f"{URL}?page=1", options=("--grant", "github", "--name", "traced"))

    (exchange,) = json.loads(moat.ok("trace", "traced", "--network", "--json"))

    assert (exchange["host"], exchange["path"], exchange["status"]) == ("api.github.com", "/user", 200)
    assert exchange["grants"] == ["github"]


def test_ten_runs_at_once_all_work(moat: Installation) -> None:
    runs = [moat.start("run", "work", "--grant", "github", "--", "curl", "-sS", URL) for _ in range(10)]

    ended = [process.communicate(timeout=60) for process in runs]

    assert [json.loads(out)["ok"] for out, _ in ended] == [True] * 10
    assert [process.returncode for process in runs] == [0] * 10


def test_the_way_to_a_sealed_run_imports_nothing_heavy(moat: Installation) -> None:
    code = (
        "import sys; from moat.cli.main import run; code = run(sys.argv[1:]);"
        "heavy = {'aiohttp', 'aiodocker', 'pydantic', 'cryptography'} & set(sys.modules);"
        "sys.exit(str(heavy) if heavy else code)"
    )
    python = moat.moat.with_name("python")
    (moat.home / ".moat" / "config.yaml").rename(moat.home / "aside.yaml")
    try:
        done = subprocess.run(
            [python, "-c", code, "run", "work", "--runtime", "bubblewrap", "--", "true"],
            cwd=moat.home, env=moat.environment(), capture_output=True, check=False,
        )  # fmt: skip
    finally:
        (moat.home / "aside.yaml").rename(moat.home / ".moat" / "config.yaml")

    assert done.returncode == 0, done.stderr
