"""Finds out what of this host a run in bubblewrap can be shown (`view.HostLayout`). Reads only."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from moat.runtimes.view import HostLayout

SYSTEM_FOLDERS = ("/usr", "/opt")
MERGED_FOLDERS = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")  # symlinks into /usr on most systems
# What programs need of /etc. Nothing that may hold a secret: a run of root's could read it.
ETC = (
    "alternatives", "bash.bashrc", "ca-certificates", "ca-certificates.conf", "debian_version", "fonts", "gai.conf",
    "host.conf", "inputrc", "issue", "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "localtime", "locale.alias",
    "locale.conf", "lsb-release", "magic", "mime.types", "networks", "os-release", "perl", "pki/ca-trust/extracted",
    "pki/tls/cert.pem", "pki/tls/certs", "pki/tls/openssl.cnf", "profile", "profile.d", "protocols", "rpc", "services",
    "ssl/cert.pem", "ssl/certs", "ssl/openssl.cnf", "terminfo", "timezone", "vim", "xattr.conf",
)  # fmt: skip
# What engines make read-only and empty for containers, for the same reason: root owns these files without a capability.
KERNEL_SETTINGS = tuple(
    f"/proc/{name}" for name in ("sys", "irq", "bus", "fs", "acpi", "scsi", "sysrq-trigger", "mtrr")
)
KERNEL_SECRETS = tuple(f"/proc/{name}" for name in ("kcore", "keys", "key-users", "latency_stats", "timer_list",
                                                    "timer_stats", "sched_debug", "vmallocinfo", "kpagecount",
                                                    "kpageflags", "kpagecgroup", "slabinfo"))  # fmt: skip
COPIED_BYTES = 128 * 1024  # of a file of /etc that is copied instead of mounted
ETC_PATTERNS = ("java*", "php/*/cli", "php/*/mods-available", "python3*")


def host_layout(targets: Iterable[str], *, home: Path, unix_sockets: Path = Path("/proc/net/unix")) -> HostLayout:
    """Return what can be shown. targets: where mounts go; what is shown read-only must not lack one.

    So a system folder that lacks one is shown entry by entry, and a folder of /etc is left out.
    home: MOAT_HOME, hidden should it lie in a shown folder.
    """
    folders = [name for name in SYSTEM_FOLDERS if Path(name).is_dir()]
    folders += [name for name in MERGED_FOLDERS if Path(name).is_dir() and not Path(name).is_symlink()]
    missing = [Path(target) for target in targets if not Path(target).exists()]
    shown = [entry for folder in folders for entry in _shown(Path(folder), missing)]
    linking = [*map(Path, MERGED_FOLDERS), *shown]
    links = {str(path): str(path.readlink()) for path in linking if path.is_symlink()}
    names = [name for name in (*ETC, *_matching()) if _can_show(Path("/etc") / name, missing)]
    etc_links = {f"/etc/{name}": link for name in names if (link := _link_into(f"/etc/{name}", folders))}
    copies = {path: text for name in names if (path := f"/etc/{name}") not in etc_links
              and (text := _small_file(path)) is not None}  # fmt: skip
    hidden = [str(home.resolve())] if _is_in(home.resolve(), folders) and home.is_dir() else []
    sockets = [path for path in _live_sockets(unix_sockets) if _is_in(path, folders) and path.is_socket()]
    return HostLayout(
        folders=tuple(str(path) for path in shown if not path.is_symlink()),
        etc=tuple(name for name in names if f"/etc/{name}" not in {*etc_links, *copies}),
        copies=copies,
        links=links | etc_links,
        kernel_settings=tuple(path for path in KERNEL_SETTINGS if Path(path).exists()),
        kernel_secrets=tuple(path for path in KERNEL_SECRETS if Path(path).exists()),
        hidden_folders=tuple(hidden),
        hidden_sockets=tuple(str(path) for path in sockets),
    )


def _shown(folder: Path, missing: Iterable[Path]) -> Iterator[Path]:
    """Yield what shows folder: itself, or its entries where it lacks a mount's target, which can then be made."""
    if not any(target.is_relative_to(folder) for target in missing):
        yield folder
        return
    for entry in sorted(folder.iterdir()):
        if entry.is_dir() and not entry.is_symlink():
            yield from _shown(entry, missing)
        elif entry.is_symlink() or entry.is_file():
            yield entry


def _matching() -> list[str]:
    etc = Path("/etc")
    return sorted(str(path.relative_to(etc)) for pattern in ETC_PATTERNS for path in etc.glob(pattern))


def _can_show(path: Path, missing: Iterable[Path]) -> bool:
    return os.access(path, os.R_OK) and not any(target.is_relative_to(path) for target in missing)


def _link_into(path: str, folders: Iterable[str]) -> str:
    """Return where a symlink leads, if that is a thing in a folder that is shown whole; "" otherwise."""
    try:
        target = os.readlink(path)  # noqa: PTH115 # thirty of them a start
    except OSError:
        return ""
    place = os.path.normpath(os.path.join(os.path.dirname(path), target))  # noqa: PTH118, PTH120 # as above
    is_there = any(place.startswith(f"{folder}/") for folder in folders) and not os.path.islink(place)  # noqa: PTH114 # as above
    return target if is_there and os.path.exists(place) else ""  # noqa: PTH110 # as above


def _small_file(path: str) -> bytes | None:
    """Return the contents of a file, None for a larger one and anything else."""
    try:
        status = os.stat(path)  # noqa: PTH116 # as above
        if not stat.S_ISREG(status.st_mode) or status.st_size > COPIED_BYTES:
            return None
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123 # as above
            return file.read()
    except OSError:
        return None


def _live_sockets(listing: Path) -> list[Path]:
    """Return the paths of the host's unix sockets; packages put them into /run, but nothing says they must."""
    try:
        lines = listing.read_text(errors="replace").splitlines()[1:]
    except OSError:
        return []
    paths = {fields[7] for line in lines if len(fields := line.split(maxsplit=7)) == 8 and fields[7].startswith("/")}
    return [Path(path) for path in sorted(paths)]


def _is_in(path: Path, folders: Iterable[str]) -> bool:
    return any(path.is_relative_to(folder) for folder in folders)
