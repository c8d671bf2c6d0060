"""What a build is shown besides its base image: a script, and what makes clients trust and find the proxy. Pure.

    /dev/moat/build          exports, then the recipe             /dev/moat/ca-bundle.pem, ca.pem, wgetrc, apt.conf

All of it below /dev, which is not part of a container's own files: nothing of it can stay in the image.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping

from moat.runs.recipe import Recipe
from moat.runs.trust import FOLDER, SYSTEM_BUNDLE, proxy_variables, trust_files, trust_variables

PLACE = "/dev/moat"
SCRIPT = f"{PLACE}/build"
COMMAND = ("/bin/sh", SCRIPT)
_APT = f"{PLACE}/apt.conf"
# apt's own user could not read what it fetches: the recipe's root may not become another in every engine.
_APT_SETTINGS = f'Acquire::https::CAInfo "{PLACE}/ca-bundle.pem";\nAPT::Sandbox::User "root";\nDpkg::Use-Pty "0";\n'


def build_files(recipe: Recipe, roots: str, authority: str) -> Mapping[str, str]:
    """Return the files of a build by path inside. roots, authority: PEM."""
    trust = {path: _moved(text) for path, text in trust_files(roots, authority).items() if path != SYSTEM_BUNDLE}
    return {**{_moved(path): text for path, text in trust.items()}, _APT: _APT_SETTINGS, SCRIPT: _script(recipe)}


def _script(recipe: Recipe) -> str:
    variables = {**trust_variables(), **proxy_variables(), "APT_CONFIG": _APT}
    exports = "".join(f"export {name}={shlex.quote(_moved(value))}\n" for name, value in variables.items())
    return exports + recipe.text


def _moved(text: str) -> str:
    return text.replace(FOLDER, PLACE)
