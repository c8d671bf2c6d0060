"""Programs of the host shown in a container whose image has none of them: its /usr lies at /host inside.

Only what finds its parts from where it stands works so: static programs, Go's, Java. Interpreters whose modules lie
where they were compiled to (Ruby, PHP, Perl) do not.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from support.places import Place

SHOWN = "/host"
PROGRAMS = ("java", "gh", "kubectl", "skopeo")


def is_shown(program: str, place: Place) -> bool:
    """Whether a place gets this program from the host."""
    return place.runtime == "docker" and program in PROGRAMS and shutil.which(program) is not None


def shown(place: Place) -> tuple[str, ...]:
    """Return the flags of `moat run` that show them; none where a run sees the host's /usr anyhow."""
    if place.runtime != "docker":
        return ()
    folders = ["/usr/local/bin", "/usr/bin", "/bin", f"{SHOWN}/bin", *_java()]
    settings = [path for path in Path("/etc").glob("java-*") if path.is_dir()]  # Debian's Java has links to there
    mounts = [f"/usr:{SHOWN}:ro", *(f"{path}:{path}:ro" for path in settings)]
    return ("-e", f"PATH={':'.join(folders)}", *(word for mount in mounts for word in ("--mount", mount)))


def libraries(place: Place) -> str:
    """Return an assignment for a shell that leads to the host's libraries, for a program that needs more than libc."""
    return f"LD_LIBRARY_PATH=$(echo {SHOWN}/lib/*-linux-gnu)" if place.runtime == "docker" else "LD_LIBRARY_PATH="


def _java() -> list[str]:
    """Return where its program really is: what stands in /usr/bin leads over /etc."""
    found = shutil.which("java")
    program = Path(found).resolve() if found else Path()
    return [f"{SHOWN}/{program.parent.relative_to('/usr')}"] if program.is_relative_to("/usr") else []
