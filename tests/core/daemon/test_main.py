from __future__ import annotations

import json
import subprocess
import sys

import pytest
from moat.daemon import lifecycle
from moat.daemon.lifecycle import ensure_running, log_tail
from moat.daemon.main import LOG_LIMIT_BYTES
from moat.paths import Home, private_folder

pytestmark = pytest.mark.timeout(60)  # real daemons


def test_a_second_daemon_of_one_home_ends_at_once(daemon_home: Home) -> None:
    client = ensure_running(daemon_home)
    done = subprocess.run(
        [sys.executable, "-m", "moat.daemon.main", "--home", str(daemon_home.root)], capture_output=True, text=True
    )

    assert done.returncode == 1
    assert "lives already" in done.stderr
    assert client.health().run_count == 0


def test_the_log_is_json_lines_and_a_long_one_is_put_aside(daemon_home: Home) -> None:
    private_folder(daemon_home.daemon)
    with (daemon_home.daemon / "daemon.log").open("wb") as file:
        file.truncate(LOG_LIMIT_BYTES + 1)

    ensure_running(daemon_home)

    assert "daemon ready" in [json.loads(line)["message"] for line in log_tail(daemon_home).splitlines()]
    assert (daemon_home.daemon / "daemon.log.1").stat().st_size == LOG_LIMIT_BYTES + 1


def test_a_ca_that_is_broken_is_told_with_its_fix(daemon_home: Home) -> None:
    private_folder(daemon_home.ca)
    (daemon_home.ca / "ca.pem").write_text("nonsense")

    with pytest.raises(Exception, match=r"ca\.key"):
        ensure_running(daemon_home)


def test_in_the_foreground_the_log_is_shown_too(daemon_home: Home) -> None:
    command = [*lifecycle.COMMAND, "--home", str(daemon_home.root), "--foreground"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        said = [process.stderr.readline()]
        while "daemon ready" not in said[-1]:
            said.append(process.stderr.readline())
        process.terminate()
        process.stderr.read()

    assert json.loads(said[-1])["level"] == "info"
    assert "daemon ready" in log_tail(daemon_home)
