from __future__ import annotations

import json
from dataclasses import asdict

from moat.daemon.extras import AwsConfig, ExtraHeader, Extras, GivenCredential, McpServer, TokenSubstitution
from moat.trace.values import decode

ALL = Extras(
    credentials=(GivenCredential("a.example.com", "Authorization", "Bearer s3cr3t"),),
    extra_headers=(ExtraHeader("a.example.com", "X-Key", "s3cr3t"),),
    token_substitutions=(TokenSubstitution("a.example.com", "placeholder", "s3cr3t"),),
    mcp_servers=(McpServer("linear", "https://mcp.example.com/mcp", "linear"),),
    aws_config=AwsConfig("arn:aws:iam::123456789012:role/x"),
)


def test_what_is_written_down_holds_no_value_and_says_that_one_is_missing() -> None:
    kept = ALL.without_values()

    assert "s3cr3t" not in json.dumps(asdict(kept))
    assert kept.are_values_lost
    assert (kept.mcp_servers, kept.aws_config) == (ALL.mcp_servers, ALL.aws_config)
    assert decode(Extras, json.loads(json.dumps(asdict(kept)))) == kept
    assert kept.without_values() == kept


def test_without_values_nothing_is_missing() -> None:
    plain = Extras(mcp_servers=ALL.mcp_servers)

    assert plain.without_values() == plain


def test_no_value_is_shown() -> None:
    assert "s3cr3t" not in repr(ALL)
