"""Git clones and pushes inside a run without a login, against git's own server behind a service that demands one."""

from __future__ import annotations

import pytest
from support import git_server
from support.places import Place

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
