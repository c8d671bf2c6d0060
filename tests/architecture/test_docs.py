"""What the documentation shows really works: examples run, commands parse, links lead somewhere."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path

import click
import pytest
from moat.api import Credential, SetHeader, TokenProvider
from moat.api.runs import ExchangeRecord
from moat.cli.asking import ask
from moat.cli.main import cli
from moat.config.checkout import Checkout
from moat.config.project import Project, load_project
from moat.config.settings import Settings
from moat.plugins.manager import Plugins
from moat.plugins.scaffold import files
from moat.runs.merge import Options
from support.documents import blocks

from architecture.tree import ROOT, relative

PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *ROOT.glob("moat-*/README.md")])
PROVIDER_PAGE = ROOT / "docs" / "plugins" / "write-a-provider.md"


def shown_commands() -> Iterator[tuple[str, list[str]]]:
    for page in PAGES:
        for block in blocks(page, "console"):
            for line in block.splitlines():
                words = shlex.split(line.removeprefix("$ "), comments=True)
                if words and words[0] == "moat":
                    yield f"{relative(page)}: {line}", words[1:]


@pytest.mark.parametrize(("shown", "words"), list(shown_commands()), ids=lambda value: str(value)[:70])
def test_every_shown_command_parses(shown: str, words: list[str]) -> None:
    command: click.Command = cli
    context = click.Context(cli, info_name="moat")
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        found = command.get_command(context, words[0])
        assert found is not None, shown
        command, words = found, words[1:]
        context = click.Context(command, parent=context, info_name=command.name)
    if not isinstance(command, click.Group):
        command.make_context(command.name, list(words), parent=context.parent, resilient_parsing=True)


def test_the_example_provider_works_as_shown() -> None:
    namespace: dict[str, object] = {}
    exec(blocks(PROVIDER_PAGE, "python")[0], namespace)  # noqa: S102 # our own page, run as a reader would
    provide = namespace["moat_credential_providers"]
    assert callable(provide)

    (provider,) = provide()

    assert isinstance(provider, TokenProvider)
    credential = Credential(provider.name, "s3cr3t-brave", "prompt", expires_at=datetime(2100, 1, 1, tzinfo=UTC))
    (rule,) = provider.rules(credential)
    assert isinstance(rule, SetHeader)
    assert (rule.match.authority, rule.name, rule.value) == (
        "api.search.brave.com",
        "X-Subscription-Token",
        "s3cr3t-brave",
    )
    assert provider.container(credential).env == {"BRAVE_API_KEY": provider.placeholder}


def test_the_example_project_file_is_what_moat_writes() -> None:
    shown, written = tomllib.loads(blocks(PROVIDER_PAGE, "toml")[0]), files("brave-search")["pyproject.toml"]

    assert shown == tomllib.loads(written)


SETTINGS_PAGE = ROOT / "docs" / "moat-yaml.md"


@pytest.mark.parametrize("text", blocks(SETTINGS_PAGE, "yaml"), ids=lambda text: str(text).partition(":")[0])
def test_every_shown_moat_yaml_makes_sense(text: str, tmp_path: Path) -> None:
    work, programs = tmp_path / "work", tmp_path / "bin"
    for folder in (work, programs):
        folder.mkdir()
    (work / "moat.yaml").write_text(text)
    for name in ("op", "pass"):
        (programs / name).touch(0o755)

    env = {"PATH": str(programs)}
    asked = ask(Options(work, ("true",)), Settings(), [], env, ignores_file=False, sources=Plugins.load())

    assert asked.question is not None


def test_every_key_of_moat_yaml_is_shown() -> None:
    shown: set[str] = set()
    for text in blocks(SETTINGS_PAGE, "yaml"):
        shown |= load_project(Checkout(SETTINGS_PAGE, text.encode())).project.model_fields_set

    assert shown == set(Project.model_fields)


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text())

    assert [target for target in targets if "://" not in target and not (page.parent / target).exists()] == []


def test_make_has_every_target_that_the_readme_names() -> None:
    named = set(re.findall(r"^make ([a-z-]+)", "\n".join(blocks(ROOT / "README.md", "console")), re.MULTILINE))

    makefile = (ROOT / "Makefile").read_text()
    assert named == {"demo", "test"}
    assert [target for target in named if f"\n{target}:" not in makefile] == []


def test_the_page_of_commands_is_what_help_says() -> None:
    program = [sys.executable, str(ROOT / "scripts" / "commands_page.py"), "--check"]

    assert subprocess.run(program, check=False).returncode == 0, "run: .venv/bin/python scripts/commands_page.py"


def test_every_field_of_the_trace_is_explained() -> None:
    text = (ROOT / "docs/trace.md").read_text()

    assert [each.name for each in fields(ExchangeRecord) if f"`{each.name}`" not in text] == []
