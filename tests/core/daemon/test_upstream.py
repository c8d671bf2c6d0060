from __future__ import annotations

from pathlib import Path

import pytest
from moat.api.errors import UsageError
from moat.config.settings import Settings, UpstreamSettings
from moat.daemon.upstream import Installation
from moat.proxy.messages import Configure
from support.upstream import make_test_ca

ROOTS = make_test_ca().pem


def an_installation(upstream: UpstreamSettings) -> Installation:
    return Installation("CERT", "KEY", lambda: Settings(upstream))


def test_the_worker_is_told_ca_roots_pins_and_ranges(tmp_path: Path) -> None:
    bundle = tmp_path / "roots.pem"
    bundle.write_text(ROOTS)
    proxy, direct = "http://moat:s3cr3t@proxy:3128", ("*.corp",)
    upstream = UpstreamSettings(bundle, {"api.internal": "10.0.0.5"}, ("10.0.0.0/8",), proxy, direct, 0.5, 2)

    told = an_installation(upstream).configuration()

    pins = {"api.internal": "10.0.0.5"}
    assert told == Configure("CERT", "KEY", ROOTS, pins, ("10.0.0.0/8",), proxy, direct, 30.0, 120.0)
    assert "s3cr3t" not in repr(told)


@pytest.mark.parametrize(
    ("proxy", "direct"), [("http://u:s3cr3t@pro..xy:1", ()), ("http://proxy:1", ("a..b",))], ids=["proxy", "no_proxy"]
)
def test_a_proxy_that_the_worker_could_not_use_is_an_error_that_hides_it(proxy: str, direct: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match=r"upstream\.proxy") as caught:
        an_installation(UpstreamSettings(None, {}, (), proxy, direct)).configuration()

    assert "s3cr3t" not in caught.value.problem


@pytest.mark.parametrize("content", [None, b"\xff"], ids=["absent", "no text"])
def test_a_bundle_that_cannot_be_read_is_an_error_that_names_it(tmp_path: Path, content: bytes | None) -> None:
    bundle = tmp_path / "roots.pem"
    if content is not None:
        bundle.write_bytes(content)

    with pytest.raises(UsageError, match=r"roots\.pem cannot be read"):
        an_installation(UpstreamSettings(bundle)).configuration()


def test_a_bundle_without_certificates_is_an_error_here_and_not_in_the_worker(tmp_path: Path) -> None:
    (tmp_path / "roots.pem").write_text("no roots at all")

    with pytest.raises(UsageError, match="no certificates"):
        an_installation(UpstreamSettings(tmp_path / "roots.pem")).configuration()


@pytest.mark.parametrize("resolve", [{"a b": "10.0.0.5"}, {"x..y": "10.0.0.5"}, {"x": "fe80::1%eth0"}], ids=str)
def test_a_pin_that_the_worker_could_not_use_is_an_error_here_and_not_in_the_worker(resolve: dict[str, str]) -> None:
    with pytest.raises(UsageError, match=r"upstream\.resolve"):
        an_installation(UpstreamSettings(None, resolve)).configuration()


def test_without_settings_nothing_private_is_opened() -> None:
    assert an_installation(UpstreamSettings(Path("/nowhere"))).bare() == Configure("CERT", "KEY")


def test_the_key_is_not_shown() -> None:
    assert "KEY" not in repr(an_installation(UpstreamSettings()))
