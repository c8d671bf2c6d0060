"""The real Host against a real TLS service, real programs and a real terminal."""

from __future__ import annotations

import io
import os
import pty
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TextIO

import pytest
from moat.api import GrantFailed, HttpRequest
from moat.config.settings import UpstreamSettings
from moat.host import RealHost
from support.connect_proxy import connect_proxy
from support.installation import eventually
from support.upstream import Upstream, make_test_ca, running_upstream

HOST = "api.example.com"
AUTH = {"Authorization": "Bearer s3cr3t-token"}


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with running_upstream("Bearer s3cr3t-token") as running:
        yield running


@pytest.fixture
def settings(upstream: Upstream, tmp_path: Path) -> UpstreamSettings:
    (tmp_path / "roots.pem").write_text(upstream.ca_pem)
    return UpstreamSettings(tmp_path / "roots.pem", upstream.pins(HOST, "other.test"), ("127.0.0.0/8",))


def a_host(settings: UpstreamSettings | None = None, env: Mapping[str, str] | None = None) -> RealHost:
    return RealHost(
        env=os.environ if env is None else env,
        upstream=settings or UpstreamSettings(),
        say=lambda text: None,
        grant="github",
        variables=("GITHUB_TOKEN", "GH_TOKEN"),
    )


def get(url: str) -> HttpRequest:
    return HttpRequest("GET", url, AUTH)


async def test_a_request_goes_to_the_pinned_address_with_its_headers(
    upstream: Upstream, settings: UpstreamSettings
) -> None:
    response = await a_host(settings).fetch(get(f"https://{HOST}/user?page=2"))

    assert response.status == 200
    assert b'"ok": true' in response.body
    assert (upstream.seen[-1].host, upstream.seen[-1].path) == (HOST, "/user?page=2")


async def test_a_body_is_sent(settings: UpstreamSettings) -> None:
    response = await a_host(settings).fetch(HttpRequest("POST", f"https://{HOST}/echo", AUTH, b"hello"))

    assert response.body == b"hello"


async def test_a_refusal_is_an_answer_and_not_an_error(settings: UpstreamSettings) -> None:
    assert (await a_host(settings).fetch(HttpRequest("GET", f"https://{HOST}/"))).status == 401


async def test_redirects_are_not_followed(settings: UpstreamSettings) -> None:
    response = await a_host(settings).fetch(get(f"https://{HOST}/redirect"))

    assert (response.status, response.headers["Location"]) == (302, "/")


async def test_a_body_over_the_limit_is_refused(settings: UpstreamSettings) -> None:
    assert len((await a_host(settings).fetch(get(f"https://{HOST}/big?n=1048576"))).body) == 1024 * 1024
    with pytest.raises(GrantFailed, match="more than 1048576 bytes"):
        await a_host(settings).fetch(get(f"https://{HOST}/big?n=1048577"))


@pytest.mark.parametrize("url", [f"http://{HOST}/", "ftp://x/", "https:///x", "file:///etc/passwd"])
async def test_only_https_is_sent(url: str, settings: UpstreamSettings) -> None:
    with pytest.raises(GrantFailed, match="not an https address"):
        await a_host(settings).fetch(get(url))


async def test_an_address_that_is_not_public_is_not_dialled_without_leave(
    upstream: Upstream, settings: UpstreamSettings
) -> None:
    closed = UpstreamSettings(settings.ca_bundle, settings.resolve)
    before = len(upstream.connections)

    for url in (f"https://127.0.0.1:{upstream.port}/", f"https://localhost:{upstream.port}/"):
        with pytest.raises(GrantFailed, match="loopback") as caught:
            await a_host(closed).fetch(get(url))
        assert "moat grant github --no-validate" in caught.value.hint

    assert len(upstream.connections) == before


async def test_a_pin_is_leave_to_dial_its_address_but_never_a_metadata_service(settings: UpstreamSettings) -> None:
    pinned = UpstreamSettings(settings.ca_bundle, {**settings.resolve, "m.test": "169.254.169.254"})

    assert (await a_host(pinned).fetch(get(f"https://{HOST}/"))).status == 200
    with pytest.raises(GrantFailed, match="metadata"):
        await a_host(pinned).fetch(get("https://m.test/"))


async def test_the_companys_proxy_is_used_but_for_pinned_and_excepted_hosts(
    upstream: Upstream, settings: UpstreamSettings
) -> None:
    with connect_proxy({HOST: upstream.port}) as proxy:
        through = UpstreamSettings(settings.ca_bundle, {}, (), proxy.url)
        proxied = await a_host(through).fetch(get(f"https://{HOST}/"))
        pinned = UpstreamSettings(settings.ca_bundle, settings.resolve, (), proxy.url)
        direct = await a_host(pinned).fetch(get(f"https://{HOST}/"))
        settings = UpstreamSettings(settings.ca_bundle, {}, ("127.0.0.0/8",), proxy.url, ("127.0.0.1",))
        excepted = await a_host(settings).fetch(get(f"https://127.0.0.1:{upstream.port}/"))

    assert (proxied.status, direct.status, excepted.status) == (200, 200, 200)
    assert proxy.asked == [f"CONNECT {HOST}:443 HTTP/1.1"]
    assert not any("s3cr3t-token" in line for line in proxy.heads[0])


async def test_a_proxy_that_refuses_is_told_without_its_password(settings: UpstreamSettings) -> None:
    with connect_proxy({}, wants="Basic another") as proxy:
        nowhere = ("http://u:s3cr3t@127.0.0.1:1", "connect call failed")
        for url, why in ((proxy.url, "wants other credentials"), nowhere):
            with pytest.raises(GrantFailed, match=why) as caught:
                await a_host(UpstreamSettings(settings.ca_bundle, {}, (), url)).fetch(get(f"https://{HOST}/"))
            assert "s3cr3t" not in f"{caught.value.problem}{caught.value.hint}"


async def test_an_untrusted_or_misnamed_certificate_is_told(settings: UpstreamSettings, tmp_path: Path) -> None:
    with pytest.raises(GrantFailed, match=r"other\.test cannot be reached: its certificate is not trusted"):
        await a_host(settings).fetch(get("https://other.test/"))
    (tmp_path / "stranger.pem").write_text(make_test_ca().pem)
    stranger = UpstreamSettings(tmp_path / "stranger.pem", settings.resolve, settings.allow_cidrs)
    with pytest.raises(GrantFailed, match="certificate is not trusted"):
        await a_host(stranger).fetch(get(f"https://{HOST}/"))


async def test_a_bundle_without_certificates_is_told(settings: UpstreamSettings, tmp_path: Path) -> None:
    (tmp_path / "roots.pem").write_text("nothing")

    with pytest.raises(GrantFailed, match="no usable certificates"):
        await a_host(settings).fetch(get(f"https://{HOST}/"))


async def test_a_closed_port_is_told_with_what_to_do_and_without_the_secret() -> None:
    settings = UpstreamSettings(None, {HOST: "127.0.0.1:1"}, ("127.0.0.0/8",))

    with pytest.raises(GrantFailed, match=f"{HOST} cannot be reached: .*; nothing was saved") as caught:
        await a_host(settings).fetch(get(f"https://{HOST}/"))

    assert "s3cr3t" not in f"{caught.value.problem}{caught.value.hint}"


async def test_a_service_that_does_not_answer_is_left(settings: UpstreamSettings) -> None:
    with pytest.raises(GrantFailed, match=r"no answer in 0\.2 s"):
        await a_host(settings).fetch(get(f"https://{HOST}/sse"), timeout_s=0.2)


async def test_a_program_runs_without_shell_input_or_our_environment() -> None:
    script = "import os, sys; print(sorted(os.environ), sys.argv[1:], repr(sys.stdin.read())); sys.exit(3)"

    result = await a_host(env={"PATH": os.environ["PATH"], "A": "1"}).run(sys.executable, "-c", script, "$HOME; true")

    assert result is not None
    assert result.exit_code == 3
    assert "'$HOME; true'" in result.stdout
    assert "''" in result.stdout
    assert "HOME'," not in result.stdout


async def test_a_program_that_is_not_installed_is_none() -> None:
    assert await a_host().run("no-such-program-anywhere") is None


async def test_a_program_that_hangs_is_killed_with_its_children(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"

    with pytest.raises(GrantFailed, match="did not end"):
        await a_host().run("sh", "-c", f"sleep 60 & echo $! > {pid_file}; wait", timeout_s=0.5)

    pid = int(pid_file.read_text())
    eventually("the child is gone", lambda: not _is_alive(pid))


async def test_a_child_that_outlives_its_program_and_keeps_its_output_is_killed_too(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"

    with pytest.raises(GrantFailed, match="did not end"):
        await a_host().run("sh", "-c", f"sleep 60 & echo $! > {pid_file}", timeout_s=0.5)

    pid = int(pid_file.read_text())
    eventually("the child is gone", lambda: not _is_alive(pid))


async def test_a_program_that_never_stops_printing_is_killed() -> None:
    with pytest.raises(GrantFailed, match="did not end"):
        await a_host().run("yes", timeout_s=0.5)


async def test_a_program_that_says_too_much_is_an_error_that_quotes_nothing_of_it() -> None:
    with pytest.raises(GrantFailed, match="said more than 1048576 bytes") as caught:
        await a_host().run("sh", "-c", "yes s3cr3t | head -c 3000000; yes s3cr3t | head -c 3000000 >&2")

    assert "s3cr3t" not in f"{caught.value.problem}{caught.value.hint}"


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_file_is_its_bytes_or_none_or_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"data")

    assert a_host().read(tmp_path / "file") == b"data"
    assert a_host().read(tmp_path / "absent") is None
    assert a_host().read(tmp_path / "file" / "below") is None
    with pytest.raises(GrantFailed, match="cannot be read"):
        a_host().read(tmp_path)


def test_the_time_is_in_utc() -> None:
    assert str(a_host().now().tzinfo) == "UTC"


def use_as_terminal(monkeypatch: pytest.MonkeyPatch, stream: TextIO) -> None:
    monkeypatch.setattr(sys, "stdin", stream)
    monkeypatch.setattr(sys, "stderr", stream)


@pytest.fixture
def nowhere() -> Iterator[TextIO]:
    with Path(os.devnull).open("r+") as stream:
        yield stream


@pytest.fixture
def terminal() -> Iterator[TextIO]:
    leader, follower = pty.openpty()
    with os.fdopen(follower, "rb", buffering=0) as raw, io.TextIOWrapper(raw) as stream:
        yield stream
    os.close(leader)


async def test_without_a_terminal_nobody_is_asked(monkeypatch: pytest.MonkeyPatch, nowhere: TextIO) -> None:
    use_as_terminal(monkeypatch, nowhere)

    with pytest.raises(GrantFailed) as caught:
        await a_host().ask("GitHub token")
    assert not await a_host().confirm("sure?")

    assert caught.value.hint == "set GITHUB_TOKEN or GH_TOKEN, or run: moat grant github --with-token < FILE"


async def test_moat_no_prompt_never_asks_even_on_a_terminal(monkeypatch: pytest.MonkeyPatch, terminal: TextIO) -> None:
    use_as_terminal(monkeypatch, terminal)

    with pytest.raises(GrantFailed):
        await a_host(env={"MOAT_NO_PROMPT": "1"}).ask("GitHub token")
    assert not await a_host(env={"MOAT_NO_PROMPT": "1"}).confirm("sure?")
