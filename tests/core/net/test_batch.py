from __future__ import annotations

import pytest
from moat.api.runs import NetworkPolicy, PolicyMode
from moat.net.batch import BATCHES, Batch, batch_warnings
from moat.net.hosts import HostPattern
from moat.net.paths import path_pattern
from moat.net.rules import parse_rule


def warned(*lines: str, mode: PolicyMode = "permissive") -> list[str]:
    return batch_warnings(NetworkPolicy(mode, (), tuple(map(parse_rule, lines))))


@pytest.mark.parametrize("batch", BATCHES, ids=lambda batch: f"{batch.host}{batch.path}")
def test_every_entry_can_be_written_as_a_rule_that_fits_it(batch: Batch) -> None:
    rule = parse_rule(f"deny POST {batch.host}{batch.path}")

    assert HostPattern.parse(rule.host)
    assert path_pattern(rule.path).fullmatch(batch.ask)


@pytest.mark.parametrize(
    ("lines", "mode", "host"),
    [
        (("deny DELETE www.googleapis.com",), "permissive", "www.googleapis.com"),
        (("deny gmail.googleapis.com/gmail/v1/users/*/messages/**",), "permissive", "gmail.googleapis.com"),
        (("allow graph.microsoft.com/v1.0/**",), "strict", "graph.microsoft.com"),
        (("deny DELETE *.salesforce.com",), "permissive", "*.salesforce.com"),
        (("deny POST api.github.com/repos/*/*/hooks",), "permissive", "api.github.com"),
        (("deny DELETE *.github.com",), "permissive", "api.github.com"),
    ],
)
def test_a_rule_that_a_batch_leads_around_is_warned_about(lines: tuple[str, ...], mode: PolicyMode, host: str) -> None:
    found = warned(*lines, mode=mode)

    assert any(f"for {host} " in text for text in found)
    assert all("--rule 'deny POST " in text for text in found)


@pytest.mark.parametrize(
    ("lines", "mode"),
    [
        (("deny www.googleapis.com",), "permissive"),
        (("allow GET www.googleapis.com/drive/v3/files",), "strict"),
        (("deny POST api.github.com/graphql", "deny DELETE api.github.com"), "permissive"),
        (("deny DELETE api.example.com", "deny GET api.example.com/admin/**"), "permissive"),
        (("allow api.github.com",), "strict"),
        (("allow GET,POST api.github.com/repos/**", "allow api.github.com"), "strict"),
        (("deny DELETE *",), "permissive"),
        ((), "permissive"),
    ],
    ids=[
        "whole host",
        "batch kept in",
        "kept in by a rule",
        "no such host",
        "all let out",
        "all let out twice",
        "every host",
        "no rules",
    ],
)
def test_what_keeps_batches_in_or_speaks_of_none_is_not(lines: tuple[str, ...], mode: PolicyMode) -> None:
    assert warned(*lines, mode=mode) == []


def test_the_line_that_is_offered_ends_the_warning() -> None:
    (text,) = warned("deny DELETE api.github.com")
    line = text.partition("--rule '")[2].rstrip("'")

    assert warned(line, "deny DELETE api.github.com") == []
