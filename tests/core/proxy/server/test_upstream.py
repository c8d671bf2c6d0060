from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Iterator

import pytest
from moat.api.http import Authority
from moat.proxy.messages import Configure
from moat.proxy.refusal import Refusal
from moat.proxy.server import upstream as module
from moat.proxy.server.tls import TlsStream
from moat.proxy.server.upstream import DialSettings, dial, resolve
from support.upstream import Upstream, make_test_ca, running_upstream


@pytest.fixture(scope="module")
def service() -> Iterator[Upstream]:
    with running_upstream() as upstream:
        yield upstream


def settings(roots: str = "", allow: tuple[str, ...] = (), **resolve_to: str) -> DialSettings:
    pins = {name.replace("_", "."): value for name, value in resolve_to.items()}
    return DialSettings.of(Configure("", "", roots, pins, allow))


def https(host: str, port: int = 443) -> Authority:
    return Authority("https", host, port)


@pytest.mark.parametrize(
    ("pin", "target"),
    [("10.0.0.1", ("10.0.0.1", 443)), ("10.0.0.1:8443", ("10.0.0.1", 8443)), ("[::1]:8443", ("::1", 8443)),
     ("::1", ("::1", 443)), ("[::1]", ("::1", 443))],
)  # fmt: skip
async def test_a_pin_is_permission_for_its_name(pin: str, target: tuple[str, int]) -> None:
    assert await resolve(settings(a_example=pin), https("a.example")) == [target]


async def test_a_pin_to_a_metadata_service_is_refused() -> None:
    with pytest.raises(Refusal, match="metadata"):
        await resolve(settings(a_example="169.254.169.254"), https("a.example"))


@pytest.mark.parametrize("pin", ["name.example", "10.0.0.1:0", "10.0.0.1:x", "10.0.0.1:70000", ""])
def test_a_pin_that_is_no_address_is_an_error(pin: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        settings(a_example=pin)


@pytest.mark.parametrize("host", ["127.0.0.1", "10.0.0.1", "::1", "::ffff:a9fe:a9fe", "169.254.169.254"])
async def test_an_address_as_host_is_judged_like_a_resolved_one(host: str) -> None:
    with pytest.raises(Refusal) as refusal:
        await resolve(settings(), https(host))

    assert (refusal.value.status, refusal.value.kind) == (403, "address")


async def test_only_allowed_answers_of_a_resolver_are_dialled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_look_up", _looked_up("127.0.0.1", "8.8.8.8", "10.0.0.1"))

    assert await resolve(settings(), https("rebinding.example")) == [("8.8.8.8", 443)]


async def test_of_real_addresses_the_guarded_one_is_left_out_and_the_others_are_raced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as answering:
        port = answering.getsockname()[1]  # nobody listens there on ::1, which refuses
        with socket.create_server(("127.0.0.2", port)) as guarded:
            monkeypatch.setattr(module, "_look_up", _looked_up("127.0.0.2", "::1", "127.0.0.1"))
            opened = settings(allow=("127.0.0.1/32", "::1/128"))
            stream = await dial(opened, Authority("http", "several.example", port))
            for listener in (answering, guarded):
                listener.setblocking(False)
            answering.accept()[0].close()
            with pytest.raises(BlockingIOError):
                guarded.accept()
            stream.abort()


async def test_a_name_that_leads_inside_only_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_look_up", _looked_up("127.0.0.1"))

    with pytest.raises(Refusal, match="loopback"):
        await resolve(settings(), https("localtest.example"))


async def test_an_allowed_range_opens_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_look_up", _looked_up("10.0.0.1"))

    assert await resolve(settings(allow=("10.0.0.0/8",)), https("inside.example")) == [("10.0.0.1", 443)]


def test_an_address_of_this_machine_is_refused_unless_its_range_is_opened() -> None:
    ranges = settings(allow=("127.0.0.0/8",)).ranges

    assert module._own("127.0.0.1", ()) == "127.0.0.1 is an address of this machine"
    assert module._own("127.0.0.1", ranges) is None
    assert module._own("8.8.8.8", ()) is None


async def test_the_certificate_must_be_for_the_name_and_by_a_known_root(service: Upstream) -> None:
    pin = f"127.0.0.1:{service.port}"
    trusting = settings(service.ca_pem, api_example_com=pin, else_where=pin)

    stream = await dial(trusting, https("api.example.com"))
    assert isinstance(stream, TlsStream)
    stream.abort()
    for failing, host in (
        (trusting, "else.where"),
        (settings(api_example_com=pin), "api.example.com"),
        (settings(make_test_ca().pem, api_example_com=pin), "api.example.com"),
    ):
        with pytest.raises(Refusal, match="certificate is not trusted"):
            await dial(failing, https(host))


async def test_plain_http_is_dialled_without_tls(service: Upstream) -> None:
    pinned = settings(a_example=f"127.0.0.1:{service.http_port}")

    stream = await dial(pinned, Authority("http", "a.example", 80))
    stream.write(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    assert await stream.more()
    stream.abort()

    assert stream.buffer.startswith(b"HTTP/1.1 200")


async def test_what_does_not_listen_or_speak_tls_is_a_502(service: Upstream) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        with pytest.raises(Refusal, match="cannot be reached") as refusal:
            await dial(settings(a_example=f"127.0.0.1:{closed.getsockname()[1]}"), https("a.example"))
    assert refusal.value.status == 502
    with pytest.raises(Refusal, match="TLS handshake"):
        await dial(settings(a_example=f"127.0.0.1:{service.http_port}"), https("a.example"))


def test_old_tls_unverified_certificates_and_wrong_names_are_never_accepted() -> None:
    context = settings().tls

    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname


def _looked_up(*addresses: str) -> object:
    async def look_up(_: str) -> list[str]:
        return list(addresses)

    return look_up


HERE = Authority("http", "db.host.moat.internal", 1)


def hostile_settings(is_ours: Callable[[tuple[str, int]], bool] = lambda _: False) -> DialSettings:
    """Return settings that would lead this machine's name elsewhere: a pin and a proxy."""
    return DialSettings.of(Configure("", "", "", {HERE.host: "192.0.2.1:9"}, (), "http://proxy.example:3128"), is_ours)


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
async def test_a_port_of_this_machine_is_dialled_on_its_loopback(address: str) -> None:
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as listener:
        listener.bind((address, 0))
        listener.listen()
        port = listener.getsockname()[1]

        stream = await dial(hostile_settings(), Authority("http", HERE.host, port), is_here=True)

        taken, _ = listener.accept()
        taken.close()
        stream.abort()


async def test_a_dead_port_of_this_machine_is_told() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # and does not listen
        port = unused.getsockname()[1]

        with pytest.raises(Refusal, match=f"port {port} of this machine cannot be reached: connection refused"):
            await dial(settings(), Authority("http", HERE.host, port), is_here=True)


async def test_a_port_of_this_machine_that_is_our_own_is_a_loop() -> None:
    with pytest.raises(Refusal, match="leads back to this proxy"):
        await dial(hostile_settings(lambda target: target == ("127.0.0.1", 1)), HERE, is_here=True)


def test_no_proxy_is_asked_for_this_machine() -> None:
    through = DialSettings.of(Configure("", "", "", {}, (), "http://proxy.example:3128"))

    assert through.proxy_for(HERE) is None
    assert through.proxy_for(https("a.example")) is not None
