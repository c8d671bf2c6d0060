"""One system call filter, rendered twice: as a BPF program for bubblewrap and as a profile for container engines.

An allow-list (`syscalls`), with a closer look at the arguments of five calls. Pure: loads nothing.

    machine other than ours ──▶ killed          x32 numbers ──▶ EPERM
    socket       only UNIX, INET, INET6, and NETLINK with protocol ROUTE: no vsock, packet, or whatever comes next
    ioctl        not TIOCSTI, TIOCLINUX: typing into the terminal that started us
    clone        no new namespaces              clone3 ──▶ ENOSYS: its flags are in memory, where a filter cannot look
    personality  only the usual ones
    not allowed  ──▶ EPERM                      newer than the list ──▶ ENOSYS

A network namespace stops none of these: vsock, keyrings and io_uring reach past it.
"""

from __future__ import annotations

import errno
import json
import struct
from collections.abc import Iterable, Sequence
from typing import Any

from moat.api.light import dataclass
from moat.runtimes import syscalls

FAMILIES = (1, 2, 10)  # AF_UNIX, AF_INET, AF_INET6
NETLINK, ROUTE = 16, 0  # AF_NETLINK with NETLINK_ROUTE: getifaddrs() and getaddrinfo() ask it
TERMINAL_INPUT = (0x5412, 0x541C)  # TIOCSTI; TIOCLINUX, whose paste does the same on a virtual console
NAMESPACES = 0x7E02_0000  # CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET
PERSONALITIES = (0, 8, 0x2_0000, 0x2_0008, 0xFFFF_FFFF)  # Linux, Linux32, UNAME26 with either, and asking
WORD = 0xFFFF_FFFF  # int arguments: the kernel looks at 32 bits, so the filter must too

ARCHITECTURES = {"x86_64": 0xC000_003E, "aarch64": 0xC000_00B7}  # AUDIT_ARCH_*, linux/audit.h
_X32 = 0x4000_0000
_EXAMINED = ("socket", "ioctl", "clone", "clone3", "personality")

# struct seccomp_data: nr, arch, instruction pointer, six 64-bit arguments (little endian on both machines)
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16
_LOAD, _JUMP_EQUAL, _JUMP_GREATER, _JUMP_NOT_LESS, _JUMP_ANY_BIT, _RETURN = 0x20, 0x15, 0x25, 0x35, 0x45, 0x06
_ALLOW, _KILL, _ERROR = 0x7FFF_0000, 0x8000_0000, 0x0005_0000

_Instruction = tuple[int, int, int, int]  # code, jump if true, jump if false, operand


@dataclass(frozen=True, slots=True)
class _Bits:
    """One comparison of an engine's profile: argument & mask == value."""

    argument: int
    mask: int
    value: int


def bpf_filter(machine: str) -> bytes:
    """Return the program for bwrap's --seccomp: an array of struct sock_filter. machine: as in `platform.machine()`.

    Raises KeyError for a machine that is not in ARCHITECTURES.
    """
    numbers = syscalls.numbers(machine)
    program = [
        _load(_ARCHITECTURE),
        (_JUMP_EQUAL, 1, 0, ARCHITECTURES[machine]),
        _give(_KILL),
        _load(_NUMBER),
    ]
    if machine == "x86_64":
        program += [(_JUMP_NOT_LESS, 0, 1, _X32), _refuse(errno.EPERM)]
    for name, block in _argument_checks().items():
        program += [(_JUMP_EQUAL, 0, len(block), numbers[name]), *block]
    program += _ranges(sorted(number for name, number in numbers.items() if name not in _EXAMINED))
    program += [(_JUMP_GREATER, 0, 1, syscalls.HIGHEST), _refuse(errno.ENOSYS), _refuse(errno.EPERM)]
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in program)


def engine_profile() -> str:
    """Return the same filter as a JSON profile for docker and podman (`--security-opt seccomp=…`)."""
    plain = sorted(set(syscalls.names()) - set(_EXAMINED))
    rules: list[dict[str, Any]] = [{"names": plain, "action": "SCMP_ACT_ALLOW"}]
    rules += [_rule("socket", [_Bits(0, WORD, family)]) for family in FAMILIES]
    rules += [_rule("socket", [_Bits(0, WORD, NETLINK), _Bits(2, WORD, ROUTE)])]
    rules += [_rule("ioctl", [bits]) for bits in unlike(1, TERMINAL_INPUT)]
    rules += [_rule("clone", [_Bits(0, NAMESPACES, 0)])]
    rules += [_rule("personality", [_Bits(0, WORD, value)]) for value in PERSONALITIES]
    rules += [{"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": errno.ENOSYS}]
    profile = {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": errno.EPERM,
        "archMap": [{"architecture": f"SCMP_ARCH_{name.upper()}", "subArchitectures": []} for name in ARCHITECTURES],
        "syscalls": rules,
    }
    return json.dumps(profile)


def unlike(argument: int, values: Sequence[int]) -> list[_Bits]:
    """Return comparisons of which at least one holds exactly when the argument's low 32 bits are none of values.

    Engines know "not equal" for 64 bits only, while the kernel drops the upper half of an ioctl's number, so that
    1 << 32 | TIOCSTI is TIOCSTI. So: allow when a bit in which all values agree differs, or when the other bits spell
    none of them.
    """
    varying = 0
    for value in values:
        varying |= values[0] ^ value
    agreed = [1 << bit for bit in range(32) if not varying >> bit & 1]
    spelled = {value & varying for value in values}
    differing = [_Bits(argument, bit, bit ^ (values[0] & bit)) for bit in agreed]
    return differing + [_Bits(argument, varying, other) for other in _subsets(varying) if other not in spelled]


def _argument_checks() -> dict[str, list[_Instruction]]:
    """Return, per call, instructions that end it; each begins with the call's number in the accumulator."""
    allow, refuse = _give(_ALLOW), _refuse(errno.EPERM)
    return {
        "socket": [
            _load(_argument(0)),
            *_any_of(FAMILIES),
            (_JUMP_EQUAL, 0, 3, NETLINK),
            _load(_argument(2)),
            (_JUMP_EQUAL, 0, 1, ROUTE),
            allow,
            refuse,
        ],
        "ioctl": [_load(_argument(1)), *_none_of(TERMINAL_INPUT), allow],
        "clone": [_load(_argument(0)), (_JUMP_ANY_BIT, 0, 1, NAMESPACES), refuse, allow],
        "clone3": [_refuse(errno.ENOSYS)],
        "personality": [_load(_argument(0)), *_any_of(PERSONALITIES), refuse],
    }


def _any_of(values: Iterable[int]) -> list[_Instruction]:
    return [step for value in values for step in ((_JUMP_EQUAL, 0, 1, value), _give(_ALLOW))]


def _none_of(values: Iterable[int]) -> list[_Instruction]:
    return [step for value in values for step in ((_JUMP_EQUAL, 0, 1, value), _refuse(errno.EPERM))]


def _ranges(numbers: Sequence[int]) -> list[_Instruction]:
    """Allow numbers (ascending), four instructions per run of neighbours; falls through above the last."""
    program: list[_Instruction] = []
    start = previous = numbers[0]
    for number in [*numbers[1:], -1]:
        if number != previous + 1:
            allow_or_refuse = [(_JUMP_NOT_LESS, 0, 1, start), _give(_ALLOW), _refuse(errno.EPERM)]
            program += [(_JUMP_GREATER, 3, 0, previous), *allow_or_refuse]
            start = number
        previous = number
    return program


def _subsets(mask: int) -> list[int]:
    found, subset = [0], (0 - mask) & mask
    while subset:
        found.append(subset)
        subset = (subset - mask) & mask
    return found if mask else []


def _rule(name: str, comparisons: Iterable[_Bits]) -> dict[str, Any]:
    arguments = [
        {"index": bits.argument, "op": "SCMP_CMP_MASKED_EQ", "value": bits.mask, "valueTwo": bits.value}
        for bits in comparisons
    ]
    return {"names": [name], "action": "SCMP_ACT_ALLOW", "args": arguments}


def _argument(index: int) -> int:
    return _ARGUMENTS + 8 * index


def _load(offset: int) -> _Instruction:
    return (_LOAD, 0, 0, offset)


def _give(result: int) -> _Instruction:
    return (_RETURN, 0, 0, result)


def _refuse(number: int) -> _Instruction:
    return _give(_ERROR | number)
