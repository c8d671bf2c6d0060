"""Sets the stage, runs the real `moat` on it, and looks at what happened from every side.

    temporary home ─ daemon of its own ─ key granted ─▶ moat run … -- python3 agent.py ─▶ report
    API on loopback ─ what it saw            canaries on the host ─ who came ─┘

Nothing of the user's is touched: another MOAT_HOME, another key, no keyring. Everything is removed at the end.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import secrets
import shutil
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from moat.api.errors import SandboxFailed
from moat.daemon import lifecycle
from moat.demo.acme import API_HOST
from moat.demo.claims import Observed
from moat.demo.provider import VARIABLE
from moat.demo.upstream import Api, running_api
from moat.paths import Home
from moat.runtimes.canary import Canary
from moat.trace.network import read_exchanges
from moat.trace.store import RunStore

REFUSED_HOST = "elsewhere.example"
PATH = "/v1/orders"
RUN_TIMEOUT_S = 120.0  # seconds are usual; a machine that swaps may take its time
_AGENT = Path(__file__).with_name("agent.py")
_MOAT = (sys.executable, "-P", "-c", "from moat.cli.start import main; main()")


@contextlib.contextmanager
def stage() -> Iterator[Home]:
    """Yield a home that nobody knows; at the end its daemon is stopped and it is removed."""
    folder = Path(tempfile.mkdtemp(prefix="moat-demo-"))
    home = Home(folder / "home")
    try:
        yield home
    finally:
        lifecycle.stop(home)
        shutil.rmtree(folder, ignore_errors=True)


def play(home: Home) -> Observed:
    """Run the demo in home and return what was seen. Raises SandboxFailed when not even the grant works."""
    key = f"moat_demo_key_{secrets.token_hex(16)}"
    with running_api(API_HOST, key) as api, Canary() as canary:
        _furnish(home, api)
        _moat(home, "grant", "acme", "--with-token", given=key)
        without_key = _asked_without_key(api)
        done = _run(home, canary)
        runs = RunStore(home).list()
        exchanges = tuple(read_exchanges(RunStore(home).network(runs[0].run_id))) if runs else ()
        return Observed(
            exit_code=done.returncode,
            said=done.stderr,
            report=_report(done.stdout),
            seen=[each for each in api.seen if each[0] == PATH],
            without_key=without_key,
            canaries=len(canary.addresses) + 1,
            visitors=canary.visitors(),
            leaks=leaks(home, key),
            exchanges=exchanges,
            api=API_HOST,
            refused=REFUSED_HOST,
        )


def leaks(home: Home, key: str) -> list[str]:
    """Return the files of moat's that hold key in the clear."""
    files = [path for path in home.root.rglob("*") if path.is_file()]
    return [str(path.relative_to(home.root)) for path in files if key.encode() in path.read_bytes()]


def python_inside() -> tuple[str, list[str]]:
    """Return a Python that a run can start, and the options of `moat run` that show it."""
    base = Path(sys.base_prefix)
    if base == Path("/usr") or not (own := base / "bin" / f"python3.{sys.version_info.minor}").exists():
        return "python3", []
    return str(own), ["--mount", f"{base}:{base}:ro"]


def _furnish(home: Home, api: Api) -> None:
    """Write the settings that make API_HOST lead to the API."""
    home.root.mkdir(mode=0o700, parents=True)
    bundle = home.root / "api.pem"
    bundle.write_text(api.certificate)
    upstream = {
        "ca_bundle": str(bundle),
        "resolve": {API_HOST: f"127.0.0.1:{api.port}"},
        "allow_cidrs": ["127.0.0.0/8"],
    }
    home.config.write_text(json.dumps({"upstream": upstream}))  # JSON is YAML


def _run(home: Home, canary: Canary) -> subprocess.CompletedProcess[str]:
    workspace = home.root.parent / "work"
    workspace.mkdir()
    shutil.copy(_AGENT, workspace / "agent.py")
    task = {
        "api": API_HOST,
        "path": PATH,
        "refused": REFUSED_HOST,
        "canaries": canary.addresses,
        "abstract": canary.abstract,
    }
    python, shown = python_inside()
    options = ["--runtime", "bubblewrap", "--grant", "acme", "--policy", "strict", *shown]
    return _call(home, "run", str(workspace), *options, "--", python, "agent.py", json.dumps(task))


def _asked_without_key(api: Api) -> int:
    context = ssl.create_default_context(cadata=api.certificate)
    context.check_hostname = False  # asked by address: nothing but this process knows the name
    connection = http.client.HTTPSConnection("127.0.0.1", api.port, timeout=10, context=context)
    with contextlib.closing(connection):
        connection.request("GET", "/without-key")
        return connection.getresponse().status


def _moat(home: Home, *arguments: str, given: str = "") -> None:
    done = _call(home, *arguments, given=given)
    if done.returncode != 0:
        raise SandboxFailed(f"moat {arguments[0]} failed: {done.stderr.strip()}", hint="run: moat doctor")


def _call(home: Home, *arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*_MOAT, *arguments],
        input=given,
        capture_output=True,
        text=True,
        encoding="utf-8",
        env=_environment(home, os.environ),
        timeout=RUN_TIMEOUT_S,
        check=False,
    )


def _environment(home: Home, env: Mapping[str, str]) -> dict[str, str]:
    kept = {name: env[name] for name in ("HOME", "PATH", "MOAT_BUBBLEWRAP_GATE") if name in env}
    ours = {"MOAT_HOME": str(home.root), VARIABLE: "1", "MOAT_KEYRING_BACKEND": "file", "MOAT_NO_PROMPT": "1"}
    return kept | ours | {"LANG": "C.UTF-8", "PYTHONUTF8": "1"}


def _report(output: str) -> dict[str, object]:
    try:
        parsed = json.loads(output)
    except ValueError:
        return {}
    return parsed if isinstance(parsed, dict) else {}
