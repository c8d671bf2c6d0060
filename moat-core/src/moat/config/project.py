"""`moat.yaml`, what a workspace says about its runs: the schema, and reading it. docs/moat-yaml.md is for people.

Only keys that do something exist; every other is an error. Nothing here decides whether what is asked for is granted:
that is `runs/wishes.py`. Imports pydantic and YAML, so it is imported where there is such a file.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from moat.api.errors import UsageError
from moat.api.services import Service
from moat.config.checkout import Checkout
from moat.config.dependencies import checked_dependencies
from moat.config.host_ports import host_ports_of
from moat.config.mounts import checked_target
from moat.config.plain_yaml import NotPlain, Place, Plain, Value, read_plain
from moat.config.port_entry import PortEntry, PortForm
from moat.config.sections import AgentSection, Hooks, MountEntry, Snapshots, Trace, Workspace
from moat.config.service_entry import ServiceEntry, ServiceForm
from moat.config.services import MOST as MOST_SERVICES
from moat.config.services import checked_services
from moat.config.values import (
    MOST,
    Dependency,
    Free,
    HostPorts,
    Interactive,
    Memory,
    Name,
    Reference,
    Scalar,
    Section,
    Text,
    Variable,
)

NAME = "moat.yaml"
_EXPECTED = {  # pydantic's types of errors, in words of the file
    "tuple_type": "must be a list",
    "dict_type": "must be a mapping",
    "model_type": "must be a mapping",
    "string_type": "must be text",
    "string_pattern_mismatch": "is not written as it must be",
    "bool_parsing": "must be true or false",
    "int_parsing": "must be a whole number",
    "float_parsing": "must be a number",
    "missing": "is missing",
    "string_too_short": "must not be empty",
}


class Network(Section):
    """What may leave."""

    policy: Literal["permissive", "strict"] | None = Field(
        default=None, description="permissive: every public host. strict: what is allowed, and the hosts of grants.",
        examples=["strict"],
    )  # fmt: skip
    allow: tuple[Text, ...] = Field(
        default=(),
        max_length=MOST,
        description="Hosts that strict lets out, as with --allow-host.",
        examples=[["pypi.org"]],
    )
    rules: tuple[Text, ...] = Field(
        default=(), max_length=MOST, description="As with --rule; the first that fits decides.",
        examples=[["allow GET api.github.com/repos/**"]],
    )  # fmt: skip
    host_ports: HostPorts = Field(
        default_factory=dict, description="Ports of this machine that are reached inside, at host.moat.internal.",
        examples=[[5432]],
    )  # fmt: skip

    @model_validator(mode="after")
    def _reachable(self) -> Network:
        host_ports_of(self.host_ports)
        return self


class Ulimit(Section):
    """A limit of each process; -1 is none."""

    soft: int = Field(ge=-1, description="What a process begins with.", examples=[1024])
    hard: int = Field(ge=-1, description="What it may raise that to.", examples=[4096])

    @model_validator(mode="after")
    def _ordered(self) -> Ulimit:
        if self.hard != -1 and not -1 < self.soft <= self.hard:
            raise ValueError("soft must not be above hard")
        return self


class Container(Section):
    """The most that a run may use."""

    memory: Memory | None = Field(default=None, description="Memory of the whole run, without swap.", examples=["2g"])
    cpus: float | None = Field(
        default=None, ge=0.01, le=1024, allow_inf_nan=False, description="Processors of the whole run.", examples=[1.5]
    )
    pids: int | None = Field(
        default=None, ge=8, le=4_194_304, description="Processes and threads; 4096 unless you say.", examples=[512]
    )
    ulimits: dict[Literal["core", "cpu", "data", "fsize", "memlock", "nofile", "stack"], Ulimit] = Field(
        default_factory=dict, description="Limits of each process.", examples=[{"nofile": {"soft": 1024, "hard": 4096}}]
    )


class McpEntry(Section):
    """An MCP server, relayed at /mcp/NAME of the proxy's own address."""

    name: Name = Field(description="The last part of its path inside.", examples=["linear"])
    url: Text = Field(description="https://host/path; no user, no query.", examples=["https://mcp.linear.app/mcp"])
    grant: Name | None = Field(default=None, description="Whose credential it is sent.", examples=["linear"])
    header: Text = Field(
        default="Authorization", description="Where: Authorization has Bearer before it.", examples=["X-Api-Key"]
    )
    tools: tuple[Text, ...] = Field(
        default=(), max_length=MOST, description="The only tools that may be called.", examples=[["list_issues"]]
    )


class Project(Section):
    """Everything that moat.yaml may say."""

    name: Name | None = Field(default=None, description="Name of the run, as --name.", examples=["my-project"])
    agent: Name | None = Field(
        default=None, description="The agent that `moat run` starts when there is no command.", examples=["claude"]
    )
    agents: dict[Name, AgentSection] = Field(
        default_factory=dict, max_length=MOST, description="How agents work here, by name.",
        examples=[{"claude": {"model": "opus"}}],
    )  # fmt: skip
    command: tuple[Free, ...] = Field(
        default=(),
        max_length=MOST,
        description="What `moat run` runs when nothing follows --.",
        examples=[["make", "test"]],
    )
    env: dict[Variable, Scalar] = Field(
        default_factory=dict, max_length=MOST, description="Variables inside. No secrets: a run can read this file.",
        examples=[{"CI": "1"}],
    )  # fmt: skip
    grants: tuple[Name, ...] = Field(
        default=(), max_length=MOST, description="Credentials to spend, as --grant.", examples=[["github"]]
    )
    secrets: dict[Variable, Reference] = Field(
        default_factory=dict, max_length=MOST,
        description="Variables whose values are fetched at start: env://NAME, file://PATH, cmd://PROGRAM ARGUMENTS, "
        "op://VAULT/ITEM/FIELD, ssm:///PARAMETER.",
        examples=[{"DATABASE_URL": "env://DATABASE_URL"}],
    )  # fmt: skip
    workspace: Workspace = Field(
        default_factory=Workspace, description="How a run works on the folder.", examples=[{"mode": "copy"}]
    )
    mounts: tuple[MountEntry, ...] = Field(
        default=(), max_length=MOST, description="More paths of this machine that are shown inside.",
        examples=[[{"source": "./fixtures", "target": "/fixtures", "read_only": True}]],
    )  # fmt: skip
    volumes: dict[Name, Text] = Field(
        default_factory=dict, max_length=MOST,
        description="Folders that runs of this workspace keep from one to the next, and their paths inside.",
        examples=[{"cache": "/home/moat/.cache"}],
    )  # fmt: skip
    network: Network = Field(default_factory=Network, description="What may leave.", examples=[{"policy": "strict"}])
    ports: dict[Name, PortForm] = Field(
        default_factory=dict, max_length=MOST, description="Ports inside that this machine reaches, by name and at a "
        "port of 127.0.0.1.",
        examples=[{"web": 3000}],
    )  # fmt: skip
    mcp: tuple[McpEntry, ...] = Field(
        default=(), max_length=MOST, description="MCP servers that are relayed into the run.",
        examples=[[{"name": "linear", "url": "https://mcp.linear.app/mcp", "grant": "linear"}]],
    )  # fmt: skip
    services: dict[Name, ServiceForm] = Field(
        default_factory=dict, max_length=MOST_SERVICES, description="Services that stand beside the command.",
        examples=[{"db": "postgres@16"}],
    )  # fmt: skip
    base_image: Text | None = Field(
        default=None, description="Container image, for docker.", examples=["debian:bookworm-slim"]
    )
    dependencies: tuple[Dependency, ...] = Field(
        default=(), max_length=MOST, description="What the image must have, for docker: it is built on first use.",
        examples=[["node@22", "pip:ruff==0.6"]],
    )  # fmt: skip
    hooks: Hooks = Field(
        default_factory=Hooks, description="What is run besides the command.", examples=[{"post_build": "useradd app"}]
    )
    runtime: Text | None = Field(default=None, description="docker, podman, bubblewrap, …", examples=["docker"])
    interactive: Interactive = Field(
        default=None, description="Whether a run gets a terminal: true, also with -d; false, never; auto, as moat has.",
        examples=["auto"],
    )  # fmt: skip
    snapshots: Snapshots = Field(
        default_factory=Snapshots, description="When the files are kept: moat snapshot.", examples=[{"before": True}]
    )
    container: Container = Field(
        default_factory=Container, description="The most that a run may use.", examples=[{"memory": "2g"}]
    )
    trace: Trace = Field(default_factory=Trace, description="What the run's trace holds.", examples=[{"bodies": True}])

    @model_validator(mode="after")
    def _one_source_each(self) -> Project:
        if both := sorted(self.env.keys() & self.secrets.keys()):
            raise ValueError(f"{', '.join(both)} stands in both env and secrets")
        if self.command and not self.command[0]:
            raise ValueError("command begins with an empty word")
        checked_dependencies(self.dependencies)
        self.services_asked()
        return self

    def services_asked(self) -> tuple[Service, ...]:
        """Return the services. Raises ValueError for those that cannot be, together or alone."""
        return checked_services(entry.as_service(name) for name, entry in self.services.items())


@dataclass(frozen=True, slots=True)
class Loaded:
    """A moat.yaml that makes sense, and the file that it was."""

    project: Project = field(repr=False)  # env may hold what should have been a secret
    checkout: Checkout


def load_project(checkout: Checkout) -> Loaded:
    """Return what a moat.yaml says.

    Raises UsageError with file, line and key for what cannot be read, is not known or makes no sense.
    """
    path = checkout.path
    try:
        plain = read_plain(checkout.data)
    except NotPlain as failure:
        where = f"{path}, line {failure.line}" if failure.line else str(path)
        raise UsageError(f"{where}: {failure.problem}", hint=f"edit {path}") from None
    values = {} if plain.value is None else plain.value
    if not isinstance(values, dict):
        raise UsageError(f"{path} must be a mapping of settings", hint="run: moat init --schema")
    try:
        project = Project.model_validate(_without_nothing(values))
    except ValidationError as failure:
        raise _explained(path, plain, failure) from None
    _check_targets(path, plain, project)
    return Loaded(project, checkout)


def _check_targets(path: Path, plain: Plain, project: Project) -> None:
    taken: set[str] = set()
    places: list[tuple[Place, str]] = [
        *((("mounts", number, "target"), mount.target) for number, mount in enumerate(project.mounts)),
        *((("volumes", name), target) for name, target in project.volumes.items()),
    ]
    for place, text in places:
        where = _where(path, plain, place)
        try:
            target = checked_target(text)
        except UsageError as failure:
            what = "target" if place[0] == "mounts" else "the path inside"
            raise UsageError(f"{where}: {failure.problem}", hint=f"write {what} like /data, without ..") from None
        if target in taken:
            raise UsageError(f"{where}: {target} is the target of two mounts or volumes", hint=f"edit {path}")
        taken.add(target)


_SECTIONS: Mapping[str | int, type[Section]] = {
    "network": Network,
    "workspace": Workspace,
    "container": Container,
    "hooks": Hooks,
    "snapshots": Snapshots,
    "trace": Trace,
}
_ENTRIES: Mapping[str | int, type[Section]] = {
    "mounts": MountEntry,
    "mcp": McpEntry,
    "services": ServiceEntry,
    "ports": PortEntry,
    "ulimits": Ulimit,
}


def schema_text() -> str:
    """Return the JSON schema of moat.yaml, as the file in docs/reference has it."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **Project.model_json_schema()}
    schema["title"] = NAME
    return json.dumps(schema, indent=2) + "\n"


def _without_nothing(values: Mapping[str, Value]) -> dict[str, Value]:
    """Drop keys without a value, which are sections whose every line is a comment. A variable without one is empty."""
    kept: dict[str, Value] = {key: value for key, value in values.items() if value is not None}
    if isinstance(env := kept.get("env"), dict):
        kept["env"] = {name: "" if value is None else value for name, value in env.items()}
    return kept


def _explained(path: Path, plain: Plain, failure: ValidationError) -> UsageError:
    """Return the first mistake: where it is, what was expected, and how it is written. Never what stands there."""
    errors = failure.errors(include_url=False, include_input=False, include_context=False)
    first = next((each for each in errors if each["type"] == "extra_forbidden"), errors[0])
    place = tuple(part for part in first["loc"] if part != "[key]")
    where, fields = _where(path, plain, place), _fields_of(place)
    if first["type"] == "extra_forbidden":
        prefix = _key(place[:-1]) and f"{_key(place[:-1])}."
        near = [f"{prefix}{name}" for name in difflib.get_close_matches(str(place[-1]), fields, n=1)]
        near = _elsewhere(str(place[-1])) or near
        hint = f"did you mean {near[0]}?" if near else f"known here: {', '.join(fields)}"
        return UsageError(f"{where}: this key is not known", hint=hint)
    told = _EXPECTED.get(first["type"]) or first["msg"].removeprefix("Value error, ").replace("Input should", "must")
    return UsageError(f"{where}: {told}", hint=_example_of(place) or f"edit {path}")


def _where(path: Path, plain: Plain, place: Place) -> str:
    known = next((place[:end] for end in range(len(place), 0, -1) if place[:end] in plain.lines), ())
    line = f", line {plain.lines[known]}" if known else ""
    return f"{path}{line}: {_key(place)}" if place else f"{path}{line}"


def _key(place: Place) -> str:
    """Return a place as people write it; a key may hold anything, and nothing in it is to reach a terminal as it is."""
    text = ".".join(map(str, place))[:200]
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _elsewhere(key: str) -> list[str]:
    """Return the places in the file where a key may stand that stands where it may not."""
    below = [f"{name}.{key}" for name, section in _SECTIONS.items() if key in section.model_fields]
    return [key, *below] if key in Project.model_fields else below


def _fields_of(place: Place) -> Mapping[str, Any]:
    """Return the keys that may stand where the last one of place does."""
    fields: Mapping[str, Any] = Project.model_fields
    sections = {**_SECTIONS, **_ENTRIES}
    for part in place[:-1]:
        fields = sections[part].model_fields if part in sections else fields
    return AgentSection.model_fields if place[:1] == ("agents",) and len(place) > 2 else fields


def _example_of(place: Place) -> str:
    """Return a line that shows how the innermost key of place is written."""
    for end in range(len(place), 0, -1):
        found = _fields_of(place[:end]).get(str(place[end - 1]))
        if found is not None and found.examples:
            key = _key(tuple(part for part in place[:end] if isinstance(part, str)))
            return f"write it as in {key}: {_flow(found.examples[0])}"
    return ""


def _flow(value: object) -> str:
    """Return a value as one line of YAML."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_flow(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_flow, value)) + "]"
    return json.dumps(value) if isinstance(value, bool) or (isinstance(value, str) and "*" in value) else str(value)
