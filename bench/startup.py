"""What a start costs: `moat run -- true` beside what it stands on, in turns, with a daemon that is there already.

    python + click ── all that any command of moat's costs        bwrap, docker run ── what the engine costs by itself

Wall time is what a person waits; CPU time, of the command and all its children, is what others on the machine do not
disturb. The daemon's and the engine's own are not in it. On a machine that is busy with other work, `chrt -r 5 python -m
bench --startup` has it wait.
"""

from __future__ import annotations

import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from moat.config.settings import DEFAULT_IMAGE

from bench.scenarios import QUICK, Size
from bench.tools import find, say

MOAT = str(Path(sys.executable).with_name("moat"))
CLICK, HELP = "python, click", "moat --help"
BWRAP, IN_BWRAP = "bwrap", "moat run, bubblewrap"
DOCKER, IN_DOCKER = "docker run", "moat run, docker"
BASES = {IN_BWRAP: BWRAP, IN_DOCKER: DOCKER}
ROUNDS, QUICK_ROUNDS = 21, 5
# 110 ms where Python and click alone take 50: as a ratio it can be told on any machine. Docker's is the engine's.
MOST_BUBBLEWRAP_MS, MOST_DOCKER_MS = 110.0, 350.0
MOST_CLICKS = MOST_BUBBLEWRAP_MS / 50  # the strict reading: it was meant for machines where click takes 50 ms

Times = Mapping[str, list[tuple[float, float]]]  # command → wall and CPU, ms


def report(size: Size) -> str:
    """Measure, and return what is printed."""
    say("starts of `moat run`")
    return f"{table(measure(size))}\n"


def measure(size: Size) -> Times:
    """Return each command's times, one pair a round; commands that cannot run here are left out."""
    times: dict[str, list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory(prefix="moat-bench-") as folder, _daemon(Path(folder)) as environment:
        commands = {name: argv for name, argv in _commands().items() if _works(name, argv, environment)}
        for number in range(QUICK_ROUNDS if size is QUICK else ROUNDS):
            turn = number % len(commands)
            for name in (*list(commands)[turn:], *list(commands)[:turn]):
                times.setdefault(name, []).append(_once(commands[name], environment))
    return {name: times[name] for name in commands}


def table(times: Times) -> str:
    """Return the times as Markdown, medians with half of what lies between the quartiles, then the targets.

    The least is what a machine that does nothing else would come near to.
    """
    lines = ["| start of | wall ms | the least | CPU ms | the least | wall ms over the engine |"]
    lines.append("|---|---:|---:|---:|---:|---:|")
    for name, pairs in times.items():
        over = f"{_over(times, name):.0f}" if BASES.get(name) in times else "-"
        cells = (_cell([pair[which] for pair in pairs]) for which in (0, 1))
        lines.append(f"| {name} | {' | '.join(cells)} | {over} |")
    lines += ["", "| over the engine | figure | target |  |", "|---|---:|---|---|"]
    if {CLICK, BWRAP, IN_BWRAP} <= times.keys():
        over = _over(times, IN_BWRAP)
        mark = _mark(over <= MOST_BUBBLEWRAP_MS)
        lines.append(f"| bubblewrap, ms | {over:.0f} | ≤ {MOST_BUBBLEWRAP_MS:g} | {mark} |")
        figure = over / _wall(times, CLICK)
        mark = _mark(figure <= MOST_CLICKS)
        lines.append(f"| bubblewrap, in starts of python with click | {figure:.2f} | ≤ {MOST_CLICKS:g} | {mark} |")
        least = (_least(times, IN_BWRAP) - _least(times, BWRAP)) / _least(times, CLICK)
        lines.append(
            f"| the same of the least of each | {least:.2f} | ≤ {MOST_CLICKS:g} | {_mark(least <= MOST_CLICKS)} |"
        )
    if {DOCKER, IN_DOCKER} <= times.keys():
        figure = _over(times, IN_DOCKER)
        lines.append(f"| docker, ms | {figure:.0f} | ≤ {MOST_DOCKER_MS:g} | {_mark(figure <= MOST_DOCKER_MS)} |")
        lines.append(f"| docker, in starts of docker run | {figure / _wall(times, DOCKER):.2f} | - | |")
    return "\n".join(lines)


def _commands() -> dict[str, list[str]]:
    run = [MOAT, "run", "--ignore-file", "--runtime"]
    return {
        CLICK: [sys.executable, "-c", "import click"],
        HELP: [MOAT, "--help"],
        BWRAP: [find("bwrap") or "bwrap", "--dev-bind", "/", "/", "--unshare-all", "--", "true"],
        IN_BWRAP: [*run, "bubblewrap", "--", "true"],
        DOCKER: [find("docker") or "docker", "run", "--rm", DEFAULT_IMAGE, "true"],
        IN_DOCKER: [*run, "docker", "--image", DEFAULT_IMAGE, "--", "true"],
    }


def _works(name: str, argv: list[str], environment: Mapping[str, str]) -> bool:
    """Whether a command can run here; also what warms it up."""
    if shutil.which(argv[0]) is None:
        say(f"no start of {name}: {argv[0]} is not installed")
        return False
    for _ in range(2):  # the first may compile modules, or import the gate's image
        done = subprocess.run(argv, env=dict(environment), cwd=environment["HOME"], capture_output=True, check=False)
    if done.returncode != 0:
        say(f"no start of {name}: {done.stderr.decode(errors='replace').strip()[-200:]}")
    return done.returncode == 0


def _once(argv: list[str], environment: Mapping[str, str]) -> tuple[float, float]:
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(
        argv, env=dict(environment), cwd=environment["HOME"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, check=True,
    )  # fmt: skip
    wall, after = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
    return 1000 * wall, 1000 * (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


@contextmanager
def _daemon(folder: Path) -> Iterator[dict[str, str]]:
    """Yield the environment of commands that meet a daemon, in a home and a workspace that are empty."""
    workspace = folder / "workspace"
    workspace.mkdir()
    environment = {**os.environ, "HOME": str(workspace), "MOAT_HOME": str(folder / "home")}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # a start that compiles everything is not what people see
    subprocess.run([MOAT, "proxy", "start", "--keep"], env=environment, capture_output=True, check=True)
    try:
        yield environment
    finally:
        subprocess.run([MOAT, "proxy", "stop"], env=environment, capture_output=True, check=False)


def _wall(times: Times, name: str) -> float:
    return statistics.median(wall for wall, _ in times[name])


def _least(times: Times, name: str) -> float:
    return min(wall for wall, _ in times[name])


def _over(times: Times, name: str) -> float:
    return _wall(times, name) - _wall(times, BASES[name])


def _cell(values: list[float]) -> str:
    first, middle, last = statistics.quantiles(values, n=4)
    return f"{middle:.0f} ±{(last - first) / 2:.0f} | {min(values):.0f}"


def _mark(holds: bool) -> str:
    return "holds" if holds else "**missed**"
