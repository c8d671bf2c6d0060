"""A run in a git worktree cannot make git on this machine start anything, nor touch any branch but its own."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from core.runs.repositories import a_repository, git
from support.installation import Installation, installation
from support.podman_place import WITH_PODMAN

RUNTIMES = [
    pytest.param("bubblewrap", marks=pytest.mark.bubblewrap),
    pytest.param("docker", marks=pytest.mark.docker),
    pytest.param("podman", marks=WITH_PODMAN),
]
# TRAP is a program in the workspace that leaves a mark; everything that git starts or follows is pointed at it.
ATTACK = """
cat > trap <<'END'
#!/bin/sh
touch "$(dirname "$0")/sprung"
END
chmod +x trap
TRAP=FOLDER/trap
mkdir -p evil/hooks; cp trap evil/hooks/post-checkout; cp trap evil/hooks/pre-commit
git init --quiet sub && git -C sub config core.fsmonitor "$TRAP"
(
  cd /workspace
  echo "gitdir: FOLDER/evil" > .git; rm -rf .git; mv .git gone; ln -sf evil .git; mkdir -p .git/hooks
  mount --bind evil .git; umount .git; umount -l /workspace/.git
  ls -d PROJECT PROJECT/.git PROJECT/.git/config
  echo x > /repository.objects/info/alternates; rm -rf /repository.objects/pack /repository.objects/*
) 2> /dev/null
echo committed > file && git add file && git commit --quiet -m "by the run"
git update-ref refs/heads/main HEAD
cd /repository.git
git config core.fsmonitor "$TRAP"; git config core.hooksPath FOLDER/evil/hooks; git config core.sshCommand "$TRAP"
git config core.alternateRefsCommand "$TRAP"; git config uploadpack.packObjectsHook "$TRAP"; git config gc.auto 1
mkdir -p hooks; cp /workspace/trap hooks/post-checkout; cp /workspace/trap hooks/reference-transaction
echo FOLDER/evil > commondir
echo PROJECT/.git/objects > objects/info/alternates
ln -s /etc/passwd refs/heads/passwd; ln -s PROJECT/.git/config refs/heads/config
ln -sfn PROJECT/.git/objects objects/ff
ln -sf /etc/passwd COMMIT_EDITMSG; rm -rf logs; ln -s PROJECT/.git logs
printf 'garbage' > index
mkfifo refs/heads/pipe packed-refs.lock
cp -r evil refs/heads/ 2> /dev/null; true
"""


@pytest.fixture(params=RUNTIMES)
def made(request: pytest.FixtureRequest) -> Iterator[Installation]:
    with installation() as moat:
        moat.configure({"runtime": request.param})
        yield moat


def test_git_outside_starts_nothing_of_the_runs_and_only_its_own_branch_has_moved(made: Installation) -> None:
    project, folder = a_repository(made.home / "project"), made.home / "project.worktrees/topic"
    git(project, "branch", "other")
    repository = project / ".git"
    made.ok("wt", "topic", "--", "true", cwd=project)
    before = _state(repository)

    attack = ATTACK.replace("FOLDER", str(folder)).replace("PROJECT", str(project))
    done = made.run("wt", "topic", "--", "sh", "-c", attack, cwd=project)

    assert done.returncode == 0, done.stderr
    assert "1 new commit" in done.stderr.decode()
    assert str(project / ".git") not in done.stdout.decode()
    assert _state(repository) == before
    assert (folder / ".git").read_text() == f"gitdir: {repository}/worktrees/topic\n"
    assert git(project, "log", "--format=%s", "topic") == "by the run\nfirst"
    assert git(project, "log", "--format=%s", "main") == "first"
    _work_as_the_user(project, folder)
    made.ok("wt", "list", cwd=project)
    assert not list(made.home.rglob("sprung"))
    git(folder, "-c", f"core.fsmonitor={folder / 'trap'}", "status")
    assert list(made.home.rglob("sprung")), "the trap is none"
    assert git(project, "fsck", "--strict", "--no-dangling") == ""


def _state(repository: Path) -> dict[str, bytes]:
    """Return what of a repository no run may change: all but objects, its own branch, and what keeps its commits."""
    kept = ("objects/", "refs/heads/topic", "logs/refs/heads/topic", "worktrees/topic/index", "refs/moat/")
    return {
        name: path.read_bytes()
        for path in sorted(repository.rglob("*"))
        if path.is_file() and not (name := path.relative_to(repository).as_posix()).startswith(kept)
    }


def _work_as_the_user(project: Path, folder: Path) -> None:
    """Use git in both places, as one does when a run is over."""
    for place in (folder, project):
        git(place, "status")
        git(place, "log", "--all")
        git(place, "fetch", ".", "topic")
    git(folder, "checkout", "--", "file")
    git(folder, "commit", "--quiet", "--allow-empty", "-m", "by the user")
    git(project, "merge", "--quiet", "topic")
    git(project, "gc", "--quiet")
    subprocess.run(["git", "worktree", "list"], cwd=project, check=True, capture_output=True)
