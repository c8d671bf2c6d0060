from __future__ import annotations

from importlib.metadata import EntryPoint

from moat.plugins.discovery import candidates, installed


def test_core_and_its_providers_are_found_with_their_distributions() -> None:
    found = {(candidate.distribution, candidate.name) for candidate in installed()}

    assert {("moat-core", "core"), ("moat-provider-github", "github"), ("moat-provider-aws", "aws")} <= found


def test_finding_imports_nothing() -> None:
    [candidate] = candidates([EntryPoint("broken", "no_such_module_anywhere", "moat")])

    assert candidate.name == "broken"
    assert candidate.title == "an unknown distribution (broken)"


def test_an_entry_point_listed_twice_counts_once() -> None:
    entry = EntryPoint("a", "json", "moat")

    assert len(candidates([entry, entry])) == 1


def test_the_order_is_by_distribution_and_name() -> None:
    entries = [EntryPoint(name, "json", "moat") for name in ("b", "a", "c")]

    assert [candidate.name for candidate in candidates(entries)] == ["a", "b", "c"]
