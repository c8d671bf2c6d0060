from __future__ import annotations

import pytest
from moat.api.endpoints import Endpoint, EndpointProvider, Forward, ProxyPath, Upstream
from moat.api.errors import MoatError
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


def test_nothing_secret_is_shown() -> None:
    rule = SetHeader(Match("a.example"), "Authorization", "Bearer s3cr3t")
    endpoint = Endpoint(ProxyPath("/_moat/a/"), Forward(Upstream("a.example", client_certificate="s3cr3t"), (rule,)))

    assert "s3cr3t" not in repr(endpoint)


def test_a_provider_without_endpoints_cannot_be_made() -> None:
    class Nothing(EndpointProvider):
        name, summary = "nothing", "nothing"

    with pytest.raises(TypeError, match="endpoints"):
        Nothing()  # type: ignore[abstract] # that is the point
