from __future__ import annotations

import errno
import json
import struct

import pytest
from moat.runtimes import syscalls
from moat.runtimes.seccomp import (
    ARCHITECTURES,
    FAMILIES,
    NAMESPACES,
    PERSONALITIES,
    TERMINAL_INPUT,
    bpf_filter,
    engine_profile,
    unlike,
)

ALLOW, KILL = 0x7FFF_0000, 0x8000_0000
MACHINES = tuple(ARCHITECTURES)
UPPER = 1 << 32


def refused(number: int) -> int:
    return 0x0005_0000 | number


def decide(machine: str, number: int, *arguments: int, architecture: int | None = None) -> int:
    """Run the filter as the kernel does (net/core/filter.c), for the few instructions that it uses."""
    padded = (*arguments, *(0,) * (6 - len(arguments)))
    data = struct.pack("<iIQ6Q", number, ARCHITECTURES[machine] if architecture is None else architecture, 0, *padded)
    program = list(struct.iter_unpack("=HBBI", bpf_filter(machine)))
    position = accumulator = 0
    while True:
        code, if_true, if_false, operand = program[position]
        position += 1
        if code == 0x06:
            return int(operand)
        if code == 0x20:
            accumulator = struct.unpack_from("<I", data, operand)[0]
            continue
        holds = {
            0x15: accumulator == operand,
            0x25: accumulator > operand,
            0x35: accumulator >= operand,
            0x45: bool(accumulator & operand),
        }[code]
        position += if_true if holds else if_false


def numbered(machine: str, name: str) -> int:
    return syscalls.numbers(machine)[name]


@pytest.mark.parametrize("machine", MACHINES)
def test_every_plain_call_of_the_list_is_allowed_and_every_other_refused(machine: str) -> None:
    numbers = syscalls.numbers(machine)
    examined = {numbers[name] for name in ("socket", "ioctl", "clone", "clone3", "personality")}

    allowed = {number for number in range(1000) if decide(machine, number) == ALLOW}

    assert allowed - examined == set(numbers.values()) - examined
    for number in range(1000):
        if number not in numbers.values():
            assert decide(machine, number) == refused(errno.ENOSYS if number > syscalls.HIGHEST else errno.EPERM)


@pytest.mark.parametrize("machine", MACHINES)
def test_socket_families_are_an_allow_list_of_32_bits(machine: str) -> None:
    socket = numbered(machine, "socket")

    assert {family for family in range(256) if decide(machine, socket, family, 1, 0) == ALLOW} == {*FAMILIES, 16}
    assert decide(machine, socket, UPPER | 40, 1, 0) == refused(errno.EPERM)
    assert decide(machine, socket, UPPER | 2, 1, 0) == ALLOW
    assert {protocol for protocol in range(64) if decide(machine, socket, 16, 3, protocol) == ALLOW} == {0}


@pytest.mark.parametrize("machine", MACHINES)
def test_typing_into_a_terminal_is_refused_however_the_number_is_dressed(machine: str) -> None:
    ioctl = numbered(machine, "ioctl")

    for request in TERMINAL_INPUT:
        assert decide(machine, ioctl, 0, request) == refused(errno.EPERM)
        assert decide(machine, ioctl, 0, 0xDEAD << 32 | request) == refused(errno.EPERM)
    assert decide(machine, ioctl, 0, 0x5413) == ALLOW


@pytest.mark.parametrize("machine", MACHINES)
def test_clone_makes_threads_and_children_but_no_namespaces(machine: str) -> None:
    clone = numbered(machine, "clone")

    assert decide(machine, clone, 0x3D0F00) == ALLOW
    for bit in range(32):
        if NAMESPACES >> bit & 1:
            assert decide(machine, clone, 1 << bit) == refused(errno.EPERM)
    assert decide(machine, numbered(machine, "clone3")) == refused(errno.ENOSYS)


@pytest.mark.parametrize("machine", MACHINES)
def test_only_the_usual_personalities(machine: str) -> None:
    personality = numbered(machine, "personality")

    assert all(decide(machine, personality, value) == ALLOW for value in PERSONALITIES)
    assert decide(machine, personality, 0x0040_0000) == refused(errno.EPERM)  # READ_IMPLIES_EXEC


def test_other_architectures_are_killed_and_x32_is_refused() -> None:
    assert decide("x86_64", 0, architecture=0x4000_0003) == KILL
    assert decide("aarch64", 0, architecture=0x4000_0028) == KILL
    assert decide("x86_64", 0x4000_0000) == refused(errno.EPERM)
    assert decide("x86_64", 0x4000_0000 | 41, 40) == refused(errno.EPERM)


def test_unknown_machine_has_no_filter() -> None:
    with pytest.raises(KeyError):
        bpf_filter("riscv64")


@pytest.mark.parametrize("values", [(0x5412,), TERMINAL_INPUT, (0, 0xFFFF_FFFF & 0x7)])
def test_unlike_holds_for_everything_but_the_values(values: tuple[int, ...]) -> None:
    rules = unlike(1, values)
    near = {value ^ 1 << bit for value in values for bit in range(32)} | set(range(4096)) | set(values)

    for number in near:
        for dressed in (number, 0xABCD << 32 | number):
            holds = any(dressed & bits.mask == bits.value for bits in rules)
            assert holds == (number not in values)


def test_engine_profile_says_the_same() -> None:
    profile = json.loads(engine_profile())
    rules = profile["syscalls"]
    plain = set(rules[0]["names"])

    assert (profile["defaultAction"], profile["defaultErrnoRet"]) == ("SCMP_ACT_ERRNO", errno.EPERM)
    assert plain == set(syscalls.names()) - {"socket", "ioctl", "clone", "clone3", "personality"}
    assert [rule["args"][0]["valueTwo"] for rule in rules if rule["names"] == ["socket"]] == [*FAMILIES, 16]
    assert all(not one["subArchitectures"] for one in profile["archMap"])
    for rule in rules[1:]:
        for argument in rule.get("args", ()):
            assert argument["op"] == "SCMP_CMP_MASKED_EQ"
            assert argument["value"] <= 0xFFFF_FFFF
