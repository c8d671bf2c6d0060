"""A port in moat.yaml: its number inside, or a mapping that also says where this machine reaches it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, GetJsonSchemaHandler
from pydantic_core import CoreSchema

from moat.config.values import Port, Section


class PortEntry(Section):
    """A port inside that this machine reaches; its number alone may stand in its place."""

    port: Port = Field(description="Where it listens inside.", examples=[3000])
    publish: Port | None = Field(
        default=None, description="The port of 127.0.0.1 that leads to it; any that is free, unless you say.",
        examples=[13000],
    )  # fmt: skip

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Say that a number may stand in its place."""
        reference = handler(core)
        schema = handler.resolve_ref_schema(reference)
        whole = dict(schema)
        schema.clear()
        schema["anyOf"] = [{"type": "integer", "minimum": 1, "maximum": 65_535, "examples": [3000]}, whole]
        return reference


def port_alone(value: object) -> object:
    """Return what is no mapping as the port inside, to be checked."""
    return value if isinstance(value, Mapping) else {"port": value}


PortForm = Annotated[PortEntry, BeforeValidator(port_alone)]
