from __future__ import annotations

from importlib import metadata
from importlib.metadata import EntryPoint, EntryPoints

import pytest
from moat.api.errors import PluginError
from moat.plugins.discovery import REWRITERS, candidates, installed, normalized, rewriter


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


def offered(monkeypatch: pytest.MonkeyPatch, *entries: EntryPoint) -> None:
    found = EntryPoints(entries)
    monkeypatch.setattr(metadata, "entry_points", lambda **wanted: found.select(**wanted))


def test_a_rewriter_is_found_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    offered(monkeypatch, EntryPoint("loud", "json:dumps", REWRITERS), EntryPoint("loud", "json:loads", "moat"))

    assert rewriter("loud")("x") == '"x"'


@pytest.mark.parametrize("value", ["json:no_such_function", "no_such_module:x", "json:__name__"])
def test_a_rewriter_that_is_no_function_is_an_error(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    offered(monkeypatch, EntryPoint("loud", value, REWRITERS))

    with pytest.raises((PluginError, AttributeError, ModuleNotFoundError)):
        rewriter("loud")


def test_a_rewriter_of_nobody_is_an_error_that_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    offered(monkeypatch)

    with pytest.raises(PluginError, match="'loud' is claimed by nobody"):
        rewriter("loud")


@pytest.mark.parametrize("name", ["Moat_Provider.x", "moat-provider-x", "moat--provider__x"])
def test_spellings_of_one_distribution_are_one_name(name: str) -> None:
    assert normalized(name) == "moat-provider-x"
