"""Git clones and pushes inside a run without a login, against git's own server behind a service that demands one."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import git_server
from support.places import Place
from support.services import Services

from e2e.conftest import make_place

AUTHOR = "-c user.name=agent -c user.email=agent@example.com"


@pytest.fixture
def project(place: Place) -> str:
    """A fresh repository's name, `owner/project.git`."""
    name = f"{place.fresh_path('git').strip('/').replace('/', '-')}/app.git"
    git_server.make_project(place.services.projects, name)
    return name


def test_a_clone_and_a_small_push_work_without_a_login(place: Place, project: str) -> None:
    _work(place, project, "echo changed > file && git add file", "small")

    assert git_server.log(place.services.projects / project) == ["small", "first"]
    place.assert_spent(f"/{project}", "github.com")


def test_a_push_too_large_for_one_buffer_arrives_in_chunks(place: Place, project: str) -> None:
    _work(place, project, "head -c 3000000 /dev/urandom > big && git add big", "large")

    assert git_server.log(place.services.projects / project) == ["large", "first"]
    pushed = [each for each in place.services.asked(f"/{project}/git-receive-pack") if each.method == "POST"]
    assert "chunked" in [each.header("Transfer-Encoding") for each in pushed]


def test_git_works_without_the_proxy_variables(place: Place, project: str) -> None:
    output = place.ok("sh", "-c", f"env -u HTTPS_PROXY -u https_proxy git ls-remote https://github.com/{project}")

    assert "refs/heads/main" in output


def test_a_repository_cloned_twice_in_one_run_is_the_same(place: Place, project: str) -> None:
    clone = f"git clone --quiet https://github.com/{project}"

    output = place.ok("sh", "-c", f"{clone} one && {clone} two && diff -r one/.git/refs two/.git/refs && echo same")

    assert output == "same\n"


def test_the_web_site_of_the_host_gets_no_credential(place: Place) -> None:
    place.run("curl", "-sS", "https://github.com/octo/settings")

    asked = place.services.asked("/octo/settings")
    assert [each.header("Authorization") for each in asked] == [None] * len(asked)
    assert asked


def _work(place: Place, project: str, change: str, subject: str) -> None:
    place.ok(
        "sh",
        "-ec",
        f"git clone --quiet https://github.com/{project} copy && cd copy && {change}"
        f" && git {AUTHOR} commit --quiet -m {subject} && git push --quiet",
    )


@pytest.mark.parametrize("protocol", ["HTTP/1.1", "HTTP/2"])
def test_git_shows_its_token_when_it_is_asked_for_it_and_pushes_on_the_same_connection(
    services: Services, protocol: str
) -> None:
    """Without a door there is a token: git's first CONNECT comes without it, is answered 407, and is asked again."""
    project = f"token-{protocol.lower().replace('/', '-')}/app.git"
    git_server.make_project(services.projects, project)
    script = (
        f"git -c http.version={protocol} clone --quiet https://github.com/{project} copy && cd copy && "
        f"head -c 3000000 /dev/urandom > big && git add big && git {AUTHOR} commit --quiet -m large && "
        f"GIT_TRACE_CURL=1 git -c http.version={protocol} push --quiet"
    )
    with make_place("process", "", services, Path("/nowhere")) as place:
        work = place.workspace()
        done = place.installation.run(
            "run", work, "--runtime", "process", "--grant", "github", "--", "sh", "-ec", script
        )

    said = done.stderr.decode()
    assert done.returncode == 0, said
    assert git_server.log(services.projects / project) == ["large", "first"]
    at_first, _, then = said.partition("HTTP/1.1 407 ")
    assert "CONNECT github.com:443" in at_first
    assert "Proxy-Authorization:" not in at_first
    assert then.count("HTTP/1.1 200 Connection established") == 1
    assert at_first.count("Connected to ") + then.count("Connected to ") == 1  # the connection was kept
    place.assert_spent(f"/{project}", "github.com")
