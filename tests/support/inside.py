"""What the end-to-end tests bring into a run by `--mount`: small client programs, and the libraries that they use.

/e2e/programs/   one file a client        /e2e/node  /e2e/npm/   where scripts/clients.sh brought them
/e2e/lib/        for PYTHONPATH           /e2e/aws/   awscli for PYTHONPATH, likewise
/e2e/get, h2_only   the Go programs, where the host has Go     /e2e/cargo   where the host has it
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).parents[2]
BROUGHT = ROOT / ".build" / "clients"  # made by scripts/clients.sh
GO_CACHE = ROOT / ".build" / "go-cache"
PLACE = "/e2e"
LIBRARIES = ("requests", "aiohttp", "h2")

PROGRAMS = {
    "with_urllib.py": """
import sys, urllib.request
print(urllib.request.urlopen(sys.argv[1]).read().decode())
""",
    "with_requests.py": """
import sys, requests
print(requests.get(sys.argv[1]).text)
""",
    "with_aiohttp.py": """
import asyncio, sys, aiohttp
async def main():
    async with aiohttp.ClientSession() as session, session.get(sys.argv[1]) as response:
        print(await response.text())
asyncio.run(main())
""",
    "with_http_client.py": """
import http.client, sys, urllib.parse
url = urllib.parse.urlsplit(sys.argv[1])
connection = http.client.HTTPSConnection(url.hostname)
connection.request("GET", url.path)
print(connection.getresponse().read().decode())
""",
    "fetch.mjs": """
console.log(await (await fetch(process.argv[2])).text())
""",
    "https.cjs": """
require('https').get(process.argv[2], (response) => response.pipe(process.stdout))
""",
}

GO_PROGRAM = """
package main

import (
	"io"
	"net/http"
	"os"
)

func main() {
	response, err := http.Get(os.Args[1])
	if err != nil {
		panic(err)
	}
	_, _ = io.Copy(os.Stdout, response.Body)
}
"""


def make_inside(folder: Path) -> None:
    """Fill folder with everything that is brought into runs; readable by everybody."""
    for name, text in PROGRAMS.items():
        program = folder / "programs" / name
        program.parent.mkdir(parents=True, exist_ok=True)
        program.write_text(text.lstrip())
    shutil.copyfile(Path(__file__).with_name("grpc_program.py"), folder / "programs" / "grpc_program.py")
    shutil.copytree(Path(__file__).with_name("clients") / "programs", folder / "programs", dirs_exist_ok=True)
    for name in LIBRARIES:
        copy_distribution(name, folder / "lib", set())
    _copy_brought(folder)
    _copy_pip(folder / "lib")
    _build_go(folder)
    _copy_cargo(folder / "cargo")
    subprocess.run(["chmod", "-R", "a+rX", folder], check=True)


def copy_distribution(name: str, target: Path | str, done: set[str]) -> None:
    """Copy an installed distribution, and what it needs, to target."""
    if name in done:
        return
    done.add(name)
    distribution = metadata.distribution(name)
    for file in distribution.files or ():
        source = Path(str(distribution.locate_file(file)))
        if ".." not in file.parts and source.suffix != ".pyc" and source.is_file():
            copy = Path(target) / file
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, copy)
    for requirement in distribution.requires or ():
        if "extra ==" in requirement:
            continue
        needed = re.findall(r"^[\w.-]+", requirement)[0]
        if _is_installed(needed):
            copy_distribution(needed, target, done)


def _copy_brought(folder: Path) -> None:
    """Copy what scripts/clients.sh brought for tests that run as an ordinary user too, who may not read this folder."""
    unused = shutil.ignore_patterns("examples", "topics", "__pycache__")
    for name, source in {"aws": "aws", "npm": "node/lib/node_modules/npm"}.items():
        if (BROUGHT / source).is_dir():
            shutil.copytree(BROUGHT / source, folder / name, ignore=unused)
    if (program := BROUGHT / "node/bin/node").exists():
        shutil.copy(program, folder / "node")


def _is_installed(name: str) -> bool:
    try:
        metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def _copy_pip(target: Path) -> None:
    """Copy pip from wherever this machine has it: Debian's, or the one that installed the tests' own environment."""
    found = importlib.util.find_spec("pip")
    places = [Path("/usr/lib/python3/dist-packages/pip")]
    places += [Path(found.origin).parent] if found and found.origin else []
    for place in places:
        if place.is_dir():
            shutil.copytree(place, target / "pip", dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
            return


def _build_go(folder: Path) -> None:
    if shutil.which("go") is None:
        return
    # Kept from one session to the next, and shared: without it go builds its whole standard library, for minutes.
    environment = {**os.environ, "CGO_ENABLED": "0", "GO111MODULE": "off", "GOCACHE": str(GO_CACHE)}
    (folder / "programs" / "get.go").write_text(GO_PROGRAM)
    for name in ("get", "h2_only"):
        source = folder / "programs" / f"{name}.go"
        subprocess.run(["go", "build", "-o", str(folder / name), str(source)], env=environment, check=True)


def _copy_cargo(target: Path) -> None:
    """Copy cargo itself: what rustup puts on the PATH only looks for it in a home folder."""
    found = [*sorted(Path.home().glob(".rustup/toolchains/stable*/bin/cargo")), Path("/usr/bin/cargo")]
    if program := next((each for each in found if each.exists()), None):
        shutil.copy(program, target)
