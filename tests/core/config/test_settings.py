from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from moat.api.errors import UsageError
from moat.config.settings import (
    DEFAULT_IMAGE,
    NetworkSettings,
    Settings,
    UpstreamSettings,
    load_settings,
    split_address,
)
from moat.paths import Home

KNOWN = "known here: upstream, image, runtime, network, workspace, daemon, routing, metrics, trace"


def settings(tmp_path: Path, text: str) -> Settings:
    (tmp_path / "config.yaml").write_text(text)
    return load_settings(Home(tmp_path))


def test_without_a_file_there_are_defaults(tmp_path: Path) -> None:
    assert load_settings(Home(tmp_path)) == Settings(UpstreamSettings(None, {}, ()), DEFAULT_IMAGE, "")


def test_without_a_file_neither_yaml_nor_pydantic_is_imported(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path\n"
        "from moat.config.settings import load_settings; from moat.paths import Home\n"
        f"load_settings(Home(Path({str(tmp_path)!r})))\n"
        "assert not {'pydantic', 'yaml'} & set(sys.modules)"
    )

    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


@pytest.mark.parametrize("text", ["", "# nothing yet\n", "upstream: {}\n"], ids=["empty", "comment", "empty section"])
def test_an_empty_file_is_the_defaults(tmp_path: Path, text: str) -> None:
    assert settings(tmp_path, text) == Settings()


def test_everything_that_can_be_set(tmp_path: Path) -> None:
    (tmp_path / "roots.pem").touch()

    read = settings(
        tmp_path,
        "image: debian:trixie\nruntime: docker\n"
        "upstream:\n  ca_bundle: roots.pem\n  resolve: {API.example.com: '127.0.0.1:8443'}\n"
        "  allow_cidrs: [10.0.0.0/8]\n  proxy: http://moat:s3cr3t@proxy:3128\n"
        "  no_proxy: ['*.corp', '[::1]:8443', 10.0.0.1, git.corp:443, '*']\n",
    )

    assert (read.image, read.runtime) == ("debian:trixie", "docker")
    assert read.upstream.ca_bundle == tmp_path / "roots.pem"
    assert read.upstream.pinned("api.EXAMPLE.com") == ("127.0.0.1", 8443)
    assert read.upstream.pinned("other.example.com") is None
    assert read.upstream.allow_cidrs == ("10.0.0.0/8",)
    assert read.upstream.proxy == "http://moat:s3cr3t@proxy:3128"
    assert read.upstream.no_proxy == ("*.corp", "[::1]:8443", "10.0.0.1", "git.corp:443", "*")
    assert "s3cr3t" not in repr(read)


@pytest.mark.parametrize(
    ("text", "problem", "hint"),
    [
        ("upstreem: {}", "unknown setting upstreem", "did you mean upstream?"),
        ("upstream: {ca_bundel: x}", "unknown setting upstream.ca_bundel", "did you mean upstream.ca_bundle?"),
        (
            "colour: red",
            "unknown setting colour",
            KNOWN,
        ),
    ],
)
def test_unknown_keys_are_errors_with_a_suggestion(tmp_path: Path, text: str, problem: str, hint: str) -> None:
    with pytest.raises(UsageError, match=problem) as caught:
        settings(tmp_path, text)

    assert caught.value.hint == hint


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("image: [", "is not YAML, line 1"),
        ("- a", "must be a mapping"),
        ("image: 3", "image: input should be a valid string"),
        ("upstream: 3", "upstream: "),
        ("upstream: {ca_bundle: /nowhere/roots.pem}", "there is no file /nowhere/roots.pem"),
        ("upstream: {resolve: {a: example.com}}", "upstream.resolve.a: 'example.com' is not an address"),
        ("upstream: {resolve: {a: '10.0.0.1:0'}}", "upstream.resolve.a"),
        ("upstream: {resolve: {a: '10.0.0.1:http'}}", "upstream.resolve.a"),
        ("upstream: {allow_cidrs: [10.0.0.1/8]}", "is not a range"),
        ("upstream: {allow_cidrs: 10.0.0.0/8}", "upstream.allow_cidrs"),
        ("!!python/object/apply:os.system [true]", "is not YAML"),
    ],
)
def test_mistakes_name_the_file_and_the_key(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(UsageError) as caught:
        settings(tmp_path, text)

    assert problem in caught.value.problem
    assert str(tmp_path / "config.yaml") in caught.value.problem


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("proxy: https://u:s3cr3t@proxy:1", "is not the address of an HTTP proxy"),
        ("proxy: http://u:s3cr3t@proxy", "is not the address of an HTTP proxy"),
        ("proxy: http://u:s3cr3t@proxy:s3cr3t", "is not the address of an HTTP proxy"),
        ("proxy: http://u:s3cr3t@proxy:1/path", "is not the address of an HTTP proxy"),
        ("proxy: [http://u:s3cr3t@proxy:1]", "upstream.proxy"),
        ("no_proxy: ['.corp', 'x*.corp']", "'x*.corp' is not a host"),
        ("no_proxy: ['http://a']", "'http://a' is not a host"),
        ("no_proxy: corp", "upstream.no_proxy"),
    ],
)
def test_mistakes_about_the_proxy_are_told_without_its_password(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(UsageError) as caught:
        settings(tmp_path, f"upstream:\n  {text}\n")

    assert problem in caught.value.problem
    assert "s3cr3t" not in f"{caught.value.problem}{caught.value.hint}"


@pytest.mark.parametrize("make", [lambda p: p.mkdir(), lambda p: p.write_bytes(b"\xff")], ids=["a folder", "no text"])
def test_a_file_that_cannot_be_read_is_told(tmp_path: Path, make: object) -> None:
    assert callable(make)
    make(tmp_path / "config.yaml")

    with pytest.raises(UsageError, match="cannot be read"):
        load_settings(Home(tmp_path))


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("10.0.0.1", ("10.0.0.1", None)),
        ("10.0.0.1:443", ("10.0.0.1", 443)),
        ("::1", ("::1", None)),
        ("[::1]", ("::1", None)),
        ("[::1]:443", ("::1", 443)),
    ],
)
def test_addresses_with_and_without_a_port(text: str, address: tuple[str, int | None]) -> None:
    assert split_address(text) == address


@pytest.mark.parametrize(
    "text", ["", ":", "host", "host:1", "10.0.0.1:", "10.0.0.1:65536", "10.0.0.1:-1", "[::1:443", "1"]
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        split_address(text)


def test_network_rules_are_taken_in_their_order_and_misspelt_keys_are_not(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.config.write_text("network: {policy: strict, rules: [allow a.example, deny *]}")

    assert load_settings(home).network == NetworkSettings("strict", ("allow a.example", "deny *"))
    home.config.write_text("network: {rule: [deny *]}")
    with pytest.raises(UsageError, match=r"network\.rule") as error:
        load_settings(home)
    assert "network.rules" in error.value.hint


@pytest.mark.parametrize(
    "text",
    ["image: 2020-13-45", "runtime: !!int x", "runtime: !!timestamp x", "image: !!bool maybe", "[" * 5_000,
     "upstream: {ca_bundle: ~nobody-of-this-name/roots.pem}", 'upstream: {ca_bundle: "\\0"}'],
    ids=["a date that is none", "a number that is none", "a time that is none", "neither true nor false", "too deep",
         "a user that is none", "a path that is none"],
)  # fmt: skip
def test_values_that_yaml_cannot_make_are_mistakes_like_others(tmp_path: Path, text: str) -> None:
    with pytest.raises(UsageError, match=r"config\.yaml"):
        settings(tmp_path, text)


def test_the_port_for_routing_is_set_and_checked(tmp_path: Path) -> None:
    assert settings(tmp_path, "{}").routing.port == 8080
    assert settings(tmp_path, "routing: {port: 8081}").routing.port == 8081
    for text in ("routing: {port: 0}", "routing: {port: 65536}", "routing: {port: web}"):
        with pytest.raises(UsageError, match=r"routing\.?"):
            settings(tmp_path, text)
    with pytest.raises(UsageError) as error:
        settings(tmp_path, "routing: {prot: 1}")
    assert "routing.port" in error.value.hint


@pytest.mark.parametrize(
    ("text", "minutes"), [("image: x", 5.0), ("daemon: {idle_minutes: 0}", 0.0), ("daemon: {}", 5.0)]
)
def test_the_daemon_leaves_when_it_is_told_to(tmp_path: Path, text: str, minutes: float) -> None:
    assert settings(tmp_path, text).daemon.idle_minutes == minutes


@pytest.mark.parametrize("text", ["daemon: {idle_minutes: -1}", "daemon: {idle_minutes: .nan}", "daemon: {idle: 3}"])
def test_a_time_that_makes_no_sense_is_an_error(tmp_path: Path, text: str) -> None:
    with pytest.raises(UsageError, match=r"daemon\.idle"):
        settings(tmp_path, text)


@pytest.mark.parametrize("name", ["first_byte_minutes", "upload_idle_minutes"])
def test_how_long_a_service_may_take_is_set_and_checked(tmp_path: Path, name: str) -> None:
    assert getattr(settings(tmp_path, "image: x").upstream, name) == 5
    assert getattr(settings(tmp_path, f"upstream: {{{name}: 0.5}}").upstream, name) == 0.5
    for number in ("0", "-1", ".nan", ".inf", "1441", "soon"):
        with pytest.raises(UsageError, match=rf"upstream\.{name}"):
            settings(tmp_path, f"upstream: {{{name}: {number}}}")


def test_what_is_hidden_of_every_workspace_is_set_and_checked(tmp_path: Path) -> None:
    assert settings(tmp_path, "workspace: {exclude: [.env]}").workspace.exclude == (".env",)
    for text in ("workspace: {exclude: ['!a']}", "workspace: {exclude: .env}", "workspace: {exclud: [a]}"):
        with pytest.raises(UsageError, match=r"workspace"):
            settings(tmp_path, text)


def test_the_port_for_metrics_is_set_and_checked(tmp_path: Path) -> None:
    assert settings(tmp_path, "{}").metrics.port == 0
    assert settings(tmp_path, "metrics: {port: 9464}").metrics.port == 9464
    for text in ("metrics: {port: -1}", "metrics: {port: 65536}", "metrics: {port: web}"):
        with pytest.raises(UsageError, match=r"metrics\.?"):
            settings(tmp_path, text)


def test_bodies_are_traced_only_where_that_is_said(tmp_path: Path) -> None:
    assert settings(tmp_path, "trace: {bodies: true}").trace.bodies
    assert not settings(tmp_path, "{}").trace.bodies
    with pytest.raises(UsageError, match="trace"):
        settings(tmp_path, "trace: {bodys: true}")
