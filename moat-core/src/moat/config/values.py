"""The kinds of values that moat.yaml is made of: text, names, sizes, and what every section of it has in common."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, WithJsonSchema

from moat.config.dependencies import parse_dependency
from moat.config.excludes import parse_exclude
from moat.config.host_ports import MOST as MOST_PORTS
from moat.config.host_ports import NAME as HOST_PORT_NAME

SIZES = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
LEAST_MEMORY_BYTES = 16 << 20  # engines refuse less than 6 MiB, and nothing useful starts in that
_SIZE = r"^([0-9]{1,15})([kmgKMG]?)[bB]?$"
_TIME = r"^([0-9]{1,6})([smh])$"
SECONDS = {"s": 1, "m": 60, "h": 3600}
MOST = 256  # entries of any list: a person reads them

Text = Annotated[str, StringConstraints(min_length=1, max_length=1024, pattern=r"^[^\x00-\x1f\x7f]*$")]
Free = Annotated[str, StringConstraints(max_length=16_384, pattern=r"^[^\x00]*$")]
Variable = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=256)]
Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
Reference = Annotated[str, StringConstraints(max_length=1024, pattern=r"^[a-z][a-z0-9+.-]{0,30}://[^\x00-\x1f\x7f]+$")]
Scalar = Annotated[Free, WithJsonSchema({"type": ["string", "number", "boolean"]})]  # YAML's own; taken as written


def size_of(text: object) -> object:
    """Return the bytes of "512m"; what is no text is left to be refused."""
    if not isinstance(text, str):
        return text
    match = re.fullmatch(_SIZE, text)
    if match is None:
        raise ValueError("write bytes, or a number with k, m or g")
    return int(match[1]) * SIZES[match[2].lower()]


def dependency_of(text: object) -> object:
    """Return text if it is a dependency; what is no text is left to be refused."""
    if isinstance(text, str):
        parse_dependency(text)
    return text


def exclude_of(text: object) -> object:
    """Return text if it is a pattern of what is not shown; what is no text is left to be refused."""
    if isinstance(text, str):
        parse_exclude(text)
    return text


def host_ports(value: object) -> object:
    """Return a list of ports as a mapping, each named like itself; what is neither is left to be refused."""
    return {str(port): port for port in value} if isinstance(value, list) else value


def time_of(text: object) -> object:
    """Return the seconds of "10m"; what is no text is left to be refused."""
    if not isinstance(text, str):
        return text
    match = re.fullmatch(_TIME, text)
    if match is None:
        raise ValueError("write a number with s, m or h")
    return int(match[1]) * SECONDS[match[2]]


Dependency = Annotated[Text, BeforeValidator(dependency_of)]
ExcludePattern = Annotated[Text, BeforeValidator(exclude_of)]
Scripts = Annotated[
    tuple[Annotated[Free, StringConstraints(min_length=1)], ...],
    BeforeValidator(lambda given: (given,) if isinstance(given, str) else given),
    Field(max_length=MOST),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}),
]
Time = Annotated[int, BeforeValidator(time_of), Field(ge=1), WithJsonSchema({"type": "string", "pattern": _TIME})]
Interactive = Annotated[
    bool | None,
    BeforeValidator(lambda given: None if given == "auto" else given),
    WithJsonSchema({"enum": [True, False, "auto"]}),
]
Memory = Annotated[
    int,
    BeforeValidator(size_of),
    Field(ge=LEAST_MEMORY_BYTES),
    WithJsonSchema({"type": ["string", "integer"], "pattern": _SIZE}),
]

Port = Annotated[int, Field(ge=1, le=65_535)]
HostPortName = Annotated[str, StringConstraints(pattern=rf"^(?:{HOST_PORT_NAME}|[0-9]{{1,5}})$")]
HostPorts = Annotated[
    dict[HostPortName, Port],
    BeforeValidator(host_ports),
    Field(max_length=MOST_PORTS),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "array", "items": {"type": "integer"}, "maxItems": MOST_PORTS},
                {"type": "object", "additionalProperties": {"type": "integer"}, "maxProperties": MOST_PORTS},
            ]
        }
    ),
]


class Section(BaseModel):
    """Part of the file. Other keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)
