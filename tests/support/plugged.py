"""An installation with one more plugin: a Python of its own that sees the packages of this one, and the plugin's.

with plugged("moat-provider-fake", source, {"moat": {"fake": "moat_provider_fake"}}) as made: made.ok("grant", …)
with plugged_project(folder) as made:  # of a pyproject.toml: its wheel is built and installed
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from support.installation import Installation, installation


@contextlib.contextmanager
def plugged(name: str, source: str, entry_points: Mapping[str, Mapping[str, str]]) -> Iterator[Installation]:
    """Make an installation whose moat has this plugin. name: of the distribution and, with `_`, of its module."""
    folder = Path(tempfile.mkdtemp(prefix="moat-plugged-"))
    try:
        program = _with_plugin(folder, name, source, entry_points)
        with installation() as made:
            yield replace(made, moat=program)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def plugged_project(project: Path) -> Iterator[Installation]:
    """Make an installation whose moat has the plugin of a project, from a wheel, with nothing else to download."""
    folder = Path(tempfile.mkdtemp(prefix="moat-plugged-"))
    try:
        _new_python(folder)
        wheels, python = folder / "wheels", folder / "bin" / "python"
        run_quietly([sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", wheels, project])
        uv = Path(sys.executable).with_name("uv")
        installer = [uv, "pip", "install", "--python", python] if uv.exists() else _pip(python)
        run_quietly([*installer, "--no-deps", "--no-index", *wheels.glob("*.whl")])
        with installation() as made:
            yield replace(made, moat=_program(folder))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def run_quietly(argv: Sequence[str | Path], cwd: Path | None = None) -> str:
    """Run a program to its end and return what it said, both streams; fail, showing that, when it fails."""
    output = subprocess.STDOUT
    done = subprocess.run(argv, cwd=cwd, stdout=subprocess.PIPE, stderr=output, text=True, check=False)
    assert done.returncode == 0, done.stdout
    return done.stdout


def _pip(python: Path) -> list[str | Path]:
    return [sys.executable, "-m", "pip", "--python", python, "install"]


def _with_plugin(folder: Path, name: str, source: str, entry_points: Mapping[str, Mapping[str, str]]) -> Path:
    packages = _new_python(folder)
    (packages / f"{name.replace('-', '_')}.py").write_text(source)
    info = packages / f"{name.replace('-', '_')}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    groups = (f"[{group}]\n" + "".join(f"{key} = {value}\n" for key, value in entries.items())
              for group, entries in entry_points.items())  # fmt: skip
    (info / "entry_points.txt").write_text("\n".join(groups))
    return _program(folder)


def _new_python(folder: Path) -> Path:
    """Make a Python that sees the packages of this one, and return where its own are."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    ours = sysconfig.get_path("purelib")
    (packages / "ours.pth").write_text(f"import site; site.addsitedir({ours!r})\n")
    return packages


def _program(folder: Path) -> Path:
    program = folder / "bin" / "moat"
    program.write_text(f"#!{folder}/bin/python\nimport sys\nfrom moat.cli.start import main\nsys.exit(main())\n")
    program.chmod(0o755)
    return program
