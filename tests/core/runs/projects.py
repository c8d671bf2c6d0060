"""What a moat.yaml asks for, for the tests of this package."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from moat.api.runs import RunSpec
from moat.config.checkout import Checkout
from moat.config.project import Project, load_project
from moat.config.settings import NetworkSettings, Settings
from moat.runs.merge import Options, merged

WORK = Path("/srv/work")
USER_HOME = Path("/home/someone")


def a_checkout(text: str, path: Path = WORK / "moat.yaml") -> Checkout:
    return Checkout(path, text.encode())


def a_project(text: str) -> Project:
    return load_project(a_checkout(text)).project


def options(**said: object) -> Options:
    return replace(Options(WORK), **said)  # type: ignore[arg-type] # whatever the test wants


def settings(policy: str = "permissive", *rules: str, **said: object) -> Settings:
    network = NetworkSettings(policy, rules)  # type: ignore[arg-type] # checked by the schema elsewhere
    return replace(Settings(network=network), **said)  # type: ignore[arg-type] # whatever the test wants


def joined(text: str, said: Options | None = None, own: Settings | None = None) -> RunSpec:
    return merged(said or options(), a_project(text), own or Settings(), USER_HOME)
