"""The files of a provider to begin with: `moat plugins new NAME`. They pass the contract as they are."""

from __future__ import annotations

from pathlib import Path

from moat import __version__
from moat.api.errors import UsageError
from moat.ids import NAME
from moat.plugins.discovery import normalized
from moat.plugins.manager import RESERVED, Plugins

PREFIX = "moat-provider-"
_HINT = "use lower-case letters, digits, - and _, at most 63 characters, a letter or digit last"

_PROJECT = """[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "moat-provider-{name}"
version = "0.1.0"
description = "{name} for moat"
readme = "README.md"
requires-python = ">=3.11"
dependencies = ["moat-core>={version}"]

[project.optional-dependencies]
test = ["pytest"]

[project.entry-points.moat]
{name} = "{module}"

[tool.hatch.build.targets.wheel]
packages = ["src/{module}"]

[tool.pytest.ini_options]
testpaths = ["tests"]
"""

_PROVIDER = '''"""{name} for moat: how its token is obtained, and where it is spent."""

from collections.abc import Iterable

from moat.api import CredentialProvider, TokenProvider, hookimpl


class Provider(TokenProvider):
    """One token in one header."""

    name, summary = "{name}", "{name}: say here what it is"
    # Only these get the token.
    hosts = ("api.example.com",)
    header, prefix = "Authorization", "Bearer "
    # Where the token may be found; inside a run, each holds a placeholder.
    variables = ("{variable}",)
    question = "{name} token"
    # What answers 2xx to a good token; while it is empty, none is checked.
    check_url = ""


@hookimpl
def moat_credential_providers() -> Iterable[CredentialProvider]:
    """Offer the provider to moat."""
    return [Provider()]
'''

_TEST = '''"""What every provider promises, and what is this one's own."""

from moat.testing import ProviderContract

from {module} import Provider


class TestProvider(ProviderContract):
    """The contract, with a token of the shape that the service hands out."""

    provider = Provider()
    secret = "s3cr3t-token"
    check_url = Provider.check_url
'''

_README = """# moat-provider-{name}

{name} for moat: programs in a run use it, and never hold your token.

    pip install moat-provider-{name}
    moat grant {name}
    moat run --grant {name} -- COMMAND

**Where the token comes from**, first wins: `{variable}`, a hidden prompt. `moat grant {name} --with-token < FILE` reads
it from standard input.

**Where it is spent**, over https only: `moat plugins info {name}` lists the hosts.

**What is inside the run**: `{variable}` with a placeholder.
"""


def files(name: str) -> dict[str, str]:
    """Return the files of the provider called name, by path below its folder."""
    module = f"{PREFIX}{name}".replace("-", "_")
    variable = f"{name.replace('-', '_').upper()}_TOKEN"
    if variable[0].isdigit():  # which no variable of a shell may begin with
        variable = f"MY_{variable}"
    texts = {
        "pyproject.toml": _PROJECT,
        f"src/{module}/__init__.py": _PROVIDER,
        f"src/{module}/py.typed": "",
        "tests/test_provider.py": _TEST,
        "README.md": _README,
    }
    return {
        path: text.format(name=name, module=module, variable=variable, version=__version__)
        for path, text in texts.items()
    }


def begin(name: str, directory: Path | None, loaded: Plugins) -> Path:
    """Write the files and return their folder, which is moat-provider-NAME unless directory is given.

    Raises UsageError for a name that cannot be a provider's or is taken, and for a folder that holds anything; nothing
    is written then. PluginError when installed plugins claim one name.
    """
    _check_name(name, loaded)
    folder = directory or Path(f"{PREFIX}{name}")
    try:
        _check_folder(folder)
        for path, text in files(name).items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text, encoding="utf-8")
    except OSError as failure:
        problem = f"{failure.filename or folder} cannot be written: {failure.strerror}"
        raise UsageError(problem, hint=f"run: moat plugins new {name} DIRECTORY") from failure
    return folder


def _check_name(name: str, loaded: Plugins) -> None:
    if name.startswith(PREFIX) and name != PREFIX:
        raise UsageError(
            f"{name} is what the distribution will be called", hint=f"run: moat plugins new {name.removeprefix(PREFIX)}"
        )
    if NAME.fullmatch(name) is None or name[-1] in "-_":
        raise UsageError(f"{name!r} cannot name a provider", hint=_HINT)
    if name in RESERVED:
        raise UsageError(f"{name!r} is a word of moat grant: no provider can be called so", hint="choose another name")
    owners = {offer.value.name: offer.plugin.distribution for offer in loaded.credential_offers()}
    for found in (candidate.distribution for candidate in loaded.candidates):
        if normalized(found).startswith(PREFIX):  # one that is broken offers nothing, and is there all the same
            owners.setdefault(normalized(found).removeprefix(PREFIX), found)
    for taken, owner in owners.items():
        if normalized(taken) == normalized(name):
            raise UsageError(f"{taken} is taken by {owner}, which is installed", hint=f"run: moat plugins info {taken}")


def _check_folder(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is no folder", hint="name one that is new or empty")
    if folder.exists() and any(folder.iterdir()):
        raise UsageError(f"{folder} is not empty; nothing was written", hint="name a folder that is new or empty")
