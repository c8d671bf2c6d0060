"""The wheels are whole: core and one provider, installed alone from wheels, work without the checkout."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from architecture.tree import ROOT


def _run(*argv: str | Path, cwd: Path, env: dict[str, str]) -> str:
    done = subprocess.run([str(part) for part in argv], cwd=cwd, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.timeout(300)
def test_core_and_one_provider_install_alone_from_wheels(tmp_path: Path) -> None:
    roots = "/etc/ssl/certs/ca-certificates.crt"
    env = {
        "PATH": "/usr/bin:/bin",
        "HOME": str(tmp_path),
        "SSL_CERT_FILE": roots,
        "PIP_CERT": roots,
        "UV_SYSTEM_CERTS": "1",
    }
    wheels = tmp_path / "wheels"
    for project in ("moat-core", "moat-provider-github"):
        _run(
            sys.executable,
            "-m",
            "build",
            "--no-isolation",
            "--wheel",
            "--outdir",
            wheels,
            ROOT / project,
            cwd=tmp_path,
            env=env,
        )
    _run(sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv", cwd=tmp_path, env=env)
    python = tmp_path / "venv" / "bin" / "python"
    uv = Path(sys.executable).with_name("uv")
    installer: list[str | Path] = [uv, "pip", "install", "--python", python]
    if not uv.exists():
        installer = [sys.executable, "-m", "pip", "--python", python, "install"]

    _run(*installer, "--constraint", ROOT / "constraints.txt", *sorted(wheels.iterdir()), cwd=tmp_path, env=env)

    moat = tmp_path / "venv" / "bin" / "moat"
    assert "moat" in _run(moat, "--version", cwd=tmp_path, env=env)
    listed = _run(moat, "plugins", cwd=tmp_path, env=env)
    assert "github" in listed
    assert "anthropic" not in listed
