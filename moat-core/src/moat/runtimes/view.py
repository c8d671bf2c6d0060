"""What a run in bubblewrap sees: a sandbox specification and the host's layout become bwrap's options.

Pure: `layout` looked at the host before, bwrap acts afterwards. An allow-list: what is not named does not exist inside.

    read-only   /usr /bin /sbin /lib* /opt, named things of /etc
    ours        /etc/passwd group hosts resolv.conf nsswitch.conf hostname, read-only
    copied      small files of /etc, into its own file system, which is then made read-only: a mount each costs more
    empty       /tmp /run /var and the home
    writable    the workspace and what the user mounted
    absent      everything else: /sys, /root, other homes, every socket of the host
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import field
from pathlib import PurePosixPath

from moat.api.container import Mount
from moat.api.light import dataclass
from moat.api.runtimes import SandboxSpec

USER_ID = "1000"
ISOLATION = ("--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try",
             "--uid", USER_ID, "--gid", USER_ID, "--cap-drop", "ALL", "--disable-userns", "--new-session",
             "--die-with-parent")  # fmt: skip
EMPTY_FOLDERS = (("/tmp", "1777"), ("/run", "0755"), ("/var", "0755"), ("/var/tmp", "1777"))  # noqa: S108 - made inside
PARENT_FOLDERS = ("/etc/moat", "/etc/ssl", "/etc/pki", "/home")  # made on the way to others, they would be 0700
_HOST_NAME_CHARS = 63


@dataclass(frozen=True, slots=True)
class HostLayout:
    """What of the host can be shown. links: path → target. folders: whole. etc: names of folders and larger files.

    copies: path → contents of small files of /etc.
    kernel_settings, kernel_secrets: what of /proc must be read-only, and which files of it empty.
    hidden_folders, hidden_sockets: what lies in a shown folder and must not be seen.
    """

    folders: tuple[str, ...]
    etc: tuple[str, ...] = ()
    copies: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    links: Mapping[str, str] = field(default_factory=dict)
    kernel_settings: tuple[str, ...] = ()
    kernel_secrets: tuple[str, ...] = ()
    hidden_folders: tuple[str, ...] = ()
    hidden_sockets: tuple[str, ...] = ()


def own_files(name: str) -> dict[str, str]:
    """Return the files of /etc that are ours in every run: path → text. name: the run's, its host name inside."""
    host = host_name(name)
    return {
        "/etc/passwd": f"moat:x:{USER_ID}:{USER_ID}:moat:/home/moat:/bin/bash\n"
        "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
        "/etc/group": f"moat:x:{USER_ID}:\nnogroup:x:65534:\n",
        "/etc/hosts": f"127.0.0.1 localhost {host}\n::1 localhost\n",
        "/etc/resolv.conf": "nameserver 127.0.0.1\n",
        "/etc/nsswitch.conf": "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\nnetworks: files\n"
        "protocols: files\nservices: files\n",
        "/etc/hostname": f"{host}\n",
    }


def host_name(name: str) -> str:
    """Return a run's name as a host name (RFC 1123 §2.1)."""
    return name.replace("_", "-").strip("-")[:_HOST_NAME_CHARS] or "moat"


def arguments(
    spec: SandboxSpec, layout: HostLayout, *, files: Mapping[str, int], filter_fd: int, own_network: bool
) -> list[str]:
    """Return bwrap's options, without the command.

    files: path in /etc → descriptor with its contents. filter_fd: the system call filter. own_network: bwrap makes the
    network namespace itself (gate inside) instead of staying in the one it is started in.
    """
    options = [*ISOLATION, "--hostname", host_name(spec.name), "--seccomp", str(filter_fd)]
    if own_network:
        options.append("--unshare-net")
    for part in (_system(layout), _kernel(layout), _empty(spec.home), _own(files), _mounts(spec.mounts)):
        options += part
    options += ["--remount-ro", "/etc", "--remount-ro", "/", "--chdir", spec.workdir, "--clearenv"]
    for name, value in spec.env.items():
        options += ["--setenv", name, value]
    return options


def _system(layout: HostLayout) -> Iterator[str]:
    for folder in layout.folders:
        yield from ("--ro-bind", folder, folder)
    yield from ("--perms", "0755", "--tmpfs", "/etc")
    for folder in PARENT_FOLDERS:
        yield from ("--perms", "0755", "--dir", folder)
    for path, target in layout.links.items():
        yield from ("--symlink", target, path)
    for name in layout.etc:
        yield from ("--ro-bind", f"/etc/{name}", f"/etc/{name}")
    for folder in layout.hidden_folders:
        yield from ("--tmpfs", folder)
    for path in layout.hidden_sockets:
        yield from ("--ro-bind", "/dev/null", path)


def _kernel(layout: HostLayout) -> Iterator[str]:
    yield from ("--proc", "/proc", "--dev", "/dev")
    # bwrap believes that without capabilities nobody writes there; but root's runs own these files (core_pattern!).
    for path in layout.kernel_settings:
        yield from ("--ro-bind", path, path)
    for path in layout.kernel_secrets:
        yield from ("--ro-bind", "/dev/null", path)


def _empty(home: str) -> Iterator[str]:
    for folder, mode in (*EMPTY_FOLDERS, (home, "0700")):
        yield from ("--perms", mode, "--tmpfs", folder)
    yield from ("--symlink", "../run", "/var/run")


def _own(files: Mapping[str, int]) -> Iterator[str]:
    for path, descriptor in files.items():
        yield from ("--perms", "0444", "--file", str(descriptor), path)


def _mounts(mounts: tuple[Mount, ...]) -> Iterator[str]:
    """Mounts in their order, except that a folder comes before what lies in it, whoever asked for which."""
    for mount in sorted(mounts, key=lambda one: len(PurePosixPath(one.target).parts)):
        yield from ("--ro-bind" if mount.read_only else "--bind", str(mount.source), mount.target)
