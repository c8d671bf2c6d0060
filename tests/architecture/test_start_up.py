"""`moat --help` and `moat run` load nothing that they do not need: imports are most of what a start costs."""

from __future__ import annotations

import subprocess
import sys

import pytest
from moat.cli.main import COMMANDS

HEAVY = frozenset(
    ("boto3", "botocore", "cryptography", "aiohttp", "pydantic", "keyring", "aiodocker", "uvloop", "yaml")
)
SLOW = frozenset(
    ("email", "http", "importlib.metadata", "zipfile", "difflib", "tempfile", "secrets", "multiprocessing")
)
PROVIDERS = frozenset(("moat.api.credentials", "moat.api.endpoints", "moat.api.rules", "moat.api.tokens",
                       "moat_provider_aws.provider", "moat_provider_github.provider"))  # fmt: skip
OF_SOME_RUNS = frozenset(("moat.net.rules", "moat.config.excludes", "moat.config.project", "moat.runs.hidden",
                          "moat.runs.approvals", "moat.runs.secrets",
                          "moat.runs.console", "moat.runs.execution", "moat.runs.journal",
                          "moat.runs.snapshots", "moat.runs.supervise", "moat.runs.viewer", "moat.runs.wishes",
                          "moat.runtimes.docker_config", "moat.runtimes.docker_launch",
                          "moat.runtimes.gate"))  # fmt: skip


# What is loaded while the daemon and the gate are at work, or never.
BESIDE = frozenset(("asyncio", "ssl", "shutil", "datetime", "shlex", "logging.handlers", "moat.runs.launch",
                    "moat.trace.network"))  # fmt: skip


def loaded_by(script: str) -> set[str]:
    """Return the modules that a script has loaded at its end."""
    script = f"import sys\n{script}\nprint('loaded:', *sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.rpartition("loaded:")[2].split())


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_help_and_version_import_nothing_heavy(option: str) -> None:
    loaded = loaded_by(f"from moat.cli.main import run\nassert run([{option!r}]) == 0")

    assert loaded & (HEAVY | SLOW | PROVIDERS | OF_SOME_RUNS | {"asyncio"}) == set()


def test_a_run_imports_only_what_every_run_needs() -> None:
    loaded = loaded_by("""import moat.cli.start, moat.cli.run_start, moat.cli.run_steps
from moat.plugins.manager import Plugins
Plugins.load().runtimes()""")

    assert {"moat.runtimes.bubblewrap", "moat_provider_aws"} <= loaded
    assert loaded & ({"click"} | HEAVY | SLOW | PROVIDERS | OF_SOME_RUNS | BESIDE) == set()


def test_a_runtime_begins_before_anything_that_takes_long_to_load() -> None:
    script = """import moat.cli.start, moat.cli.run_start
from moat.runtimes import moat_runtimes
for runtime in moat_runtimes():
    with runtime.begun():
        pass"""

    assert loaded_by(script) & {"asyncio", "moat.cli.run_steps", "moat.daemon.client", "moat_provider_aws"} == set()


def test_completing_a_command_imports_none_of_them() -> None:
    script = """import os
from moat.cli.completion import answer
from moat.cli.main import cli
os.environ |= {"COMP_WORDS": "moat ", "COMP_CWORD": "1"}
assert answer(cli, "bash_complete") == 0"""

    commands = {each for each in loaded_by(script) if each.startswith("moat.cli.")}
    assert {each for each in commands if each.rpartition(".")[2] in COMMANDS} <= {"moat.cli.completion", "moat.cli.run"}
