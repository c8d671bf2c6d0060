"""An installation with one more plugin: a Python of its own that sees the packages of this one, and the plugin's.

with plugged("moat-provider-fake", source, {"moat": {"fake": "moat_provider_fake"}}) as made: made.ok("grant", …)
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Mapping
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


def _with_plugin(folder: Path, name: str, source: str, entry_points: Mapping[str, Mapping[str, str]]) -> Path:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    ours = sysconfig.get_path("purelib")
    (packages / "ours.pth").write_text(f"import site; site.addsitedir({ours!r})\n")
    (packages / f"{name.replace('-', '_')}.py").write_text(source)
    info = packages / f"{name.replace('-', '_')}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    groups = (f"[{group}]\n" + "".join(f"{key} = {value}\n" for key, value in entries.items())
              for group, entries in entry_points.items())  # fmt: skip
    (info / "entry_points.txt").write_text("\n".join(groups))
    program = folder / "bin" / "moat"
    program.write_text(f"#!{folder}/bin/python\nimport sys\nfrom moat.cli.main import main\nsys.exit(main())\n")
    program.chmod(0o755)
    return program
