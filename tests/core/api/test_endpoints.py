from __future__ import annotations

import pytest
from moat.api.credentials import Credential
from moat.api.endpoints import (
    MAX_REPLY_BYTES,
    Endpoint,
    EndpointProvider,
    Forward,
    ProxyPath,
    Question,
    Reply,
    Stream,
    Tcp,
    UnixPath,
    Upstream,
)
from moat.api.errors import MoatError, PluginError
from moat.api.rules import Match, SetHeader


@pytest.mark.parametrize("prefix", ["/_moat/aws/", "/_moat/k8s-2/"])
def test_a_path_below_ours_is_one(prefix: str) -> None:
    assert ProxyPath(prefix).url == f"http://127.0.0.1:19080{prefix}"


@pytest.mark.parametrize(
    "prefix", ["", "/", "/aws/", "/_moat/", "/_moat/aws", "/_moat/AWS/", "/_moat/a/b/", "/_moat/../", "/_moat/probe/"]
)
def test_any_other_path_is_an_error(prefix: str) -> None:
    with pytest.raises(MoatError, match="/_moat/NAME/"):
        ProxyPath(prefix)


@pytest.mark.parametrize(
    ("place", "url"),
    [
        (Tcp("api.internal"), "https://api.internal/"),
        (Tcp("api.internal", 6443), "https://api.internal:6443/"),
        (Tcp("api.internal", 80, tls=False), "http://api.internal/"),
        (Tcp("api.internal", 443, tls=False), "http://api.internal:443/"),
    ],
)
def test_a_name_and_a_port_have_a_url(place: Tcp, url: str) -> None:
    assert place.url == url


@pytest.mark.parametrize(
    "name", ["", "nodot", "Upper.case", "127.0.0.1", "a..b", "-a.b", "*.a.b", "a.b:1", "a.b/", "x" * 64 + ".a", "a.1"]
)
def test_any_other_name_is_an_error(name: str) -> None:
    with pytest.raises(MoatError, match=r"db\.internal"):
        Tcp(name)


@pytest.mark.parametrize("port", [0, -1, 65_536, 53, 19080])
def test_a_port_that_is_none_or_the_doors_own_is_an_error(port: int) -> None:
    with pytest.raises(MoatError, match="port"):
        Tcp("db.internal", port)


@pytest.mark.parametrize(
    "path",
    ["", "/", "/a.sock", "run/a.sock", "/run/../a.sock", "/run//a.sock", "/run/a/", "/run/a\n.sock", "/" + "x/" * 60],
)
def test_a_socket_that_could_be_elsewhere_is_an_error(path: str) -> None:
    with pytest.raises(MoatError, match="socket inside"):
        UnixPath(path)


def test_bytes_have_no_place_below_a_path() -> None:
    with pytest.raises(MoatError, match="Tcp or UnixPath"):
        Endpoint(ProxyPath("/_moat/a/"), Stream(Upstream("a.example")))
    Endpoint(UnixPath("/run/a.sock"), Stream(Upstream("a.example")))


def test_a_prelude_is_not_sent_in_clear() -> None:
    with pytest.raises(MoatError, match="in clear"):
        Stream(Upstream("a.example", tls=False), b"s3cr3t")


@pytest.mark.parametrize(
    ("status", "headers", "body"),
    [
        (101, (), b""),
        (600, (), b""),
        (200, (("Content-Length", "9"),), b""),
        (200, (("transfer-encoding", "chunked"),), b""),
        (200, (("A b", "c"),), b""),
        (200, (("A", "b\r\nC: d"),), b""),
        (200, (), bytes(MAX_REPLY_BYTES + 1)),
    ],
    ids=["interim", "no status", "length", "chunked", "name", "value", "too much"],
)
def test_a_reply_that_could_not_be_sent_is_an_error(
    status: int, headers: tuple[tuple[str, str], ...], body: bytes
) -> None:
    with pytest.raises(MoatError):
        Reply(status, headers, body)


def test_nothing_secret_is_shown() -> None:
    rule = SetHeader(Match("a.example"), "Authorization", "Bearer s3cr3t")
    endpoint = Endpoint(ProxyPath("/_moat/a/"), Forward(Upstream("a.example", client_certificate="s3cr3t"), (rule,)))

    assert "s3cr3t" not in repr(endpoint)
    assert "s3cr3t" not in repr((Reply(body=b"s3cr3t"), Stream(Upstream("a.example"), b"s3cr3t")))
    assert "s3cr3t" not in repr(Question("run_1", "a", "GET", "/", body=b"s3cr3t"))


def test_a_provider_without_endpoints_cannot_be_made() -> None:
    class Nothing(EndpointProvider):
        name, summary = "nothing", "nothing"

    with pytest.raises(TypeError, match="endpoints"):
        Nothing()  # type: ignore[abstract] # that is the point


async def test_a_provider_that_does_not_respond_says_so() -> None:
    class Silent(EndpointProvider):
        name, summary = "silent", "silent"

        def endpoints(self, credential: Credential) -> tuple[Endpoint, ...]:
            return ()

    with pytest.raises(PluginError, match="words"):
        await Silent().respond(Question("run_1", "words", "GET", "/"), Credential("silent", "s3cr3t", "test"))


def test_an_mcp_server_has_a_path_of_its_own_and_is_there_without_the_final_slash() -> None:
    server, kube = ProxyPath("/mcp/linear/"), ProxyPath("/_moat/kube/")

    targets = ("/mcp/linear", "/mcp/linear?a", "/mcp/linear/b?c")
    assert [server.rest_of(target) for target in targets] == ["", "?a", "/b?c"]
    assert server.rest_of("/mcp/linear2") is None
    assert kube.rest_of("/_moat/kube/api") == "/api"
    assert kube.rest_of("/_moat/kube") is None


@pytest.mark.parametrize("prefix", ["/mcp/", "/mcp/a/b/", "/mcp/..", "/mcp/A/", "/mcp/a"])
def test_what_is_no_path_of_a_server_is_refused(prefix: str) -> None:
    with pytest.raises(MoatError):
        ProxyPath(prefix)


@pytest.mark.parametrize("path", ["mcp", "//", "/a//b", "/a b", "/a?b", "/a%2Fb", "/a\r\n"])
def test_an_upstream_s_path_is_a_plain_one(path: str) -> None:
    with pytest.raises(MoatError):
        Upstream("mcp.example.com", path=path)
