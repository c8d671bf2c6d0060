from __future__ import annotations

import os
from pathlib import Path

import pytest
from moat.runs.exposure import LIMIT_FINDINGS, describe, exposed_secrets

REMOTE = '[remote "origin"]\n\turl = {}\n'


def put(folder: Path, name: str, text: str = "x") -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (".env", "A=b"),
        ("services/api/.env.production", "A=b"),
        (".npmrc", "//registry.example.com/:_authToken=npm_s3cr3t"),
        (".pypirc", "[pypi]\nusername = __token__\npassword = s3cr3t"),
        (".netrc", "machine x"),
        (".git-credentials", "https://x"),
        ("keys/id_ed25519", "k"),
        ("tls/server.key", "-----BEGIN EC PRIVATE KEY-----\n"),
        (".git/config", REMOTE.format("https://me:s3cr3t@github.com/o/r.git")),
        (".git/config", REMOTE.format("https://ghp_s3cr3t@github.com/o/r.git")),
        ("sub/.git/config", REMOTE.format("https://me:s3cr3t@github.com/o/r.git")),
        (".aws/credentials", "aws_secret_access_key = s3cr3t"),
        (".docker/config.json", '{"auths": {"r": {"auth": "s3cr3t"}}}'),
    ],
)
def test_an_obvious_secret_is_named_but_never_quoted(tmp_path: Path, name: str, text: str) -> None:
    put(tmp_path, name, text)

    found = exposed_secrets(tmp_path)

    assert [item.path for item in found] == [name]
    assert name in describe(found)
    assert "s3cr3t" not in describe(found)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (".env.example", "A=b"),
        ("environment", "A=b"),
        (".npmrc", "registry=https://registry.example.com/\n"),
        (".npmrc", "//registry.example.com/:_authToken=${NPM_TOKEN}"),
        (".pypirc", "[pypi]\nusername = __token__\n"),
        ("id_rsa.pub", "ssh-rsa"),
        ("tls/server.pem", "-----BEGIN CERTIFICATE-----\n"),
        (".git/config", REMOTE.format("https://github.com/o/r.git")),
        (".git/config", REMOTE.format("git@github.com:o/r.git")),
        (".git/config", REMOTE.format("ssh://git@github.com/o/r.git")),
        ("config", REMOTE.format("https://me:pass@github.com/o/r.git")),
        ("node_modules/x/.env", "A=b"),
    ],
)
def test_what_is_no_secret_is_not_reported(tmp_path: Path, name: str, text: str) -> None:
    put(tmp_path, name, text)

    assert exposed_secrets(tmp_path) == ()
    assert describe(()) == ""


def test_what_the_run_does_not_see_is_not_reported(tmp_path: Path) -> None:
    for name in (".env", "config/secrets/.env", "config/.env"):
        put(tmp_path, name)

    assert [item.path for item in exposed_secrets(tmp_path, [".env", "config/secrets"])] == ["config/.env"]


def test_links_are_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    put(outside, ".env")
    work = tmp_path / "work"
    work.mkdir()
    (work / "link").symlink_to(outside)
    (work / ".npmrc").symlink_to(outside / ".env")

    assert exposed_secrets(work) == ()


def test_a_pipe_of_that_name_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / ".npmrc")

    assert exposed_secrets(tmp_path) == ()


def test_it_gives_up_when_it_is_late(tmp_path: Path) -> None:
    put(tmp_path, ".env")
    times = iter([0.0, *[100.0] * 100])

    assert exposed_secrets(tmp_path, clock=lambda: next(times)) == ()


def test_it_stops_at_a_number_and_names_only_a_few(tmp_path: Path) -> None:
    for number in range(LIMIT_FINDINGS + 10):
        put(tmp_path, f"{number:03}/.env")

    found = exposed_secrets(tmp_path)

    assert len(found) == LIMIT_FINDINGS
    assert f"and {LIMIT_FINDINGS - 5} more; hide them with --exclude" in describe(found)


def test_a_file_name_cannot_steer_the_terminal(tmp_path: Path) -> None:
    put(tmp_path, "\x1b[2Jx/.env")

    assert "\x1b" not in describe(exposed_secrets(tmp_path))


def test_a_folder_that_cannot_be_read_is_no_error(tmp_path: Path) -> None:
    assert exposed_secrets(tmp_path / "absent") == ()
