from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from moat.api.container import Mount
from moat.api.errors import UsageError
from moat.api.runs import NetworkPolicy, RunSpec
from moat.daemon.protocol import SetupRequest, SetupResponse
from moat.ids import NAME, RUN_ID
from moat.paths import Home
from moat.runs.collect import collect, found_at

from core.runs.fakes import FakeClient, FakeRuntime
from core.runs.plans import a_setup


class AskedClient(FakeClient):
    """A daemon that remembers what it was asked."""

    def setup(self, request: SetupRequest) -> SetupResponse:
        self.asked = request
        return a_setup({"GH_TOKEN": "placeholder"})


@pytest.fixture
def client(tmp_path: Path) -> AskedClient:
    return AskedClient(Home(tmp_path / "moat"), [])


def test_each_kind_of_thing_is_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # a socket's path is short
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind("socket")

    kinds = {name: found_at(tmp_path / name).kind for name in (".", "file", "pipe", "socket", "absent")}

    assert kinds == {".": "folder", "file": "file", "pipe": "other", "socket": "socket", "absent": "absent"}


def test_links_are_followed_to_where_they_lead(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "circle").symlink_to(tmp_path / "circle")

    assert found_at(tmp_path / "link").resolved == (tmp_path / "real").resolve()
    assert found_at(tmp_path / "circle").kind == "absent"


def test_the_daemon_is_asked_for_what_the_spec_wants(tmp_path: Path, client: AskedClient) -> None:
    spec = RunSpec(tmp_path, ("make",), "mine", ("github",), policy=NetworkPolicy("strict", ("example.com",)))

    facts = collect(spec, Home(tmp_path / "moat"), client, FakeRuntime([]), {}, None)

    assert client.asked == SetupRequest(("github",), "mine", str(tmp_path), ("make",), "strict", ("example.com",))
    assert facts.setup.env == {"GH_TOKEN": "placeholder"}
    assert facts.name == "mine"


def test_a_run_without_a_name_gets_one_and_every_run_an_id(tmp_path: Path, client: AskedClient) -> None:
    home, spec = Home(tmp_path / "moat"), RunSpec(tmp_path, ("make",))

    first, second = (collect(spec, home, client, FakeRuntime([]), {}, None) for _ in range(2))

    assert NAME.fullmatch(first.name)
    assert RUN_ID.fullmatch(first.run_id)
    assert first.run_id != second.run_id
    assert client.asked.name == second.name


def test_a_name_that_is_none_is_refused_before_anything_is_asked(tmp_path: Path, client: AskedClient) -> None:
    with pytest.raises(UsageError, match="cannot name a run"):
        collect(RunSpec(tmp_path, ("x",), "../up"), Home(tmp_path), client, FakeRuntime([]), {}, None)

    assert not hasattr(client, "asked")


def test_every_path_is_looked_at(tmp_path: Path, client: AskedClient) -> None:
    spec = RunSpec(tmp_path, ("x",), mounts=(Mount(tmp_path / "gone", "/gone"),))

    paths = collect(spec, Home(tmp_path / "moat"), client, FakeRuntime([]), {}, None).paths

    assert (paths[tmp_path].kind, paths[tmp_path / "gone"].kind) == ("folder", "absent")


def test_moats_folder_is_known_by_its_real_place(tmp_path: Path, client: AskedClient) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "moat").symlink_to(tmp_path / "real")

    facts = collect(RunSpec(tmp_path, ("x",)), Home(tmp_path / "moat"), client, FakeRuntime([]), {}, None)

    assert facts.home.root == (tmp_path / "real").resolve()


def test_only_how_output_looks_is_passed_on(tmp_path: Path, client: AskedClient) -> None:
    env = {"TERM": "xterm", "LANG": "C.UTF-8", "GITHUB_TOKEN": "s3cr3t", "SSH_AUTH_SOCK": "/run/agent"}

    facts = collect(RunSpec(tmp_path, ("x",)), Home(tmp_path / "moat"), client, FakeRuntime([]), env, (24, 80))

    assert facts.passed == {"TERM": "xterm", "LANG": "C.UTF-8"}
    assert facts.terminal == (24, 80)


def test_what_the_runtime_is_becomes_a_fact(tmp_path: Path, client: AskedClient) -> None:
    facts = collect(RunSpec(tmp_path, ("x",)), Home(tmp_path), client, FakeRuntime([], sealed=False), {}, None)

    assert (facts.runtime, facts.is_sealed, facts.needs_image) == ("fake", False, False)


def test_what_is_hidden_of_a_workspace_is_hidden_wherever_it_is_shown(tmp_path: Path, client: AskedClient) -> None:
    for name in ("a/.env", "a/b/x.key", "secrets/.env", "other/y.key"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    mounts = tuple(Mount(tmp_path / name, f"/{name}") for name in ("a", "secrets", "other"))
    hidden = {"/workspace": (".env", "secrets/", "/a/b/*"), "/other": ("*.key",)}
    spec = RunSpec(tmp_path, ("x",), mounts=mounts, hidden=hidden)

    found = collect(spec, Home(tmp_path / "moat"), client, FakeRuntime([]), {}, None).hidden

    assert {target: [each.path for each in of_it] for target, of_it in found.items()} == {
        "/workspace": ["a/.env", "a/b/x.key", "secrets"],
        "/a": [".env", "b/x.key"],
        "/secrets": [],  # mounted on purpose
        "/other": ["y.key"],
    }
