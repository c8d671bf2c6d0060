from __future__ import annotations

from pathlib import Path

from support.installation import eventually, installation


def test_all_of_moats_is_gone_and_its_daemon_and_runs_with_it() -> None:
    with installation() as moat:
        (moat.home / "work").mkdir()
        moat.file("work/mine", "stays")
        moat.file(".moat-volumes/x/cache/kept", "").chmod(0o400)
        moat.ok("run", "-d", "work", "--runtime", "process", "--name", "alive", "--", "sleep", "600")
        daemon = moat.daemon_pid()

        refused = moat.run("uninstall")
        assert refused.returncode == 2
        assert b"nobody to ask" in refused.stderr
        assert b".moat-volumes" in refused.stdout
        assert b"live runs, which are stopped: 1" in refused.stdout

        said = moat.file(".moat-sessions/pal/work-0123/said", "to an agent")

        done = moat.run("uninstall", "--yes")

        assert done.returncode == 0, done.stderr
        assert not said.parents[2].exists()
        assert b"pip uninstall moat-core" in done.stderr
        eventually("the daemon is gone", lambda: not Path(f"/proc/{daemon}/fd").exists())
        eventually("nothing is left", lambda: not (moat.home / ".moat").exists())
        assert not (moat.home / ".moat-volumes").exists()
        assert (moat.home / "work" / "mine").read_text() == "stays"
        assert b"nothing of moat's" in moat.run("uninstall").stdout


SLOW = "trap 'sleep 1; echo late > .envrc; exit' TERM; echo up; while :; do sleep 0.1; done"


def test_a_run_that_takes_its_time_to_end_writes_nothing_once_all_is_removed() -> None:
    with installation() as moat:
        (moat.home / "work").mkdir()
        moat.ok("run", "-d", "--name", "slow", "work", "--runtime", "process", "--", "sh", "-c", SLOW)
        eventually("it is up", lambda: "up" in moat.ok("logs", "slow"))

        moat.ok("uninstall", "--yes")

        eventually("nobody holds the run", lambda: moat.processes() == [])
        assert (moat.home / "work" / ".envrc").read_text() == "late\n"
        assert not (moat.home / ".moat").exists()


def test_copies_are_told_of_before_they_go() -> None:
    with installation() as moat:
        moat.file("work/mine", "before")
        moat.ok("run", "--copy", "--name", "copied", "work", "--runtime", "process", "--", "sh", "-c", "echo > mine")

        assert b".moat-copies" in moat.run("uninstall").stdout
        moat.ok("uninstall", "--yes")

        assert list(moat.home.glob(".moat*")) == []
        assert (moat.home / "work" / "mine").read_text() == "before"


def test_a_spoilt_store_does_not_keep_the_rest() -> None:
    with installation() as moat:
        moat.grant("github", "ghp_s3cr3t0000000000000000000000000000")
        (moat.home / ".moat" / "store.json").write_text("garbage")

        done = moat.run("uninstall", "--yes")

        assert done.returncode == 0
        assert b"is not what moat wrote" in done.stderr
        assert not (moat.home / ".moat").exists()
