"""A service in moat.yaml: the name of its kind, or a mapping with whatever else it needs."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import (
    BeforeValidator,
    Field,
    GetJsonSchemaHandler,
    StringConstraints,
    model_validator,
)
from pydantic_core import CoreSchema

from moat.api.services import Service
from moat.config.services import IMAGE, KINDS, known_service
from moat.config.values import Free, Port, Scalar, Section, Text

_MOST = 256  # entries of a list: a person reads them

Image = Annotated[str, StringConstraints(pattern=rf"^{IMAGE}$")]
Variable = Annotated[str, StringConstraints(pattern=r"^[^=\x00-\x20\x7f]{1,256}$")]  # of images: Java's have dots


class ServiceEntry(Section):
    """A service beside the command; its kind alone may stand in its place."""

    kind: Text | None = Field(
        default=None, description=f"What it is: {', '.join(KINDS)}; with a version of the image after @.",
        examples=["postgres@16"],
    )  # fmt: skip
    image: Image | None = Field(
        default=None, description="Its image; what has no kind needs one.", examples=["opensearchproject/opensearch:2"]
    )
    port: Port | None = Field(
        default=None, description="Where it listens; what has no kind needs one.", examples=[9200]
    )
    env: dict[Variable, Scalar] = Field(
        default_factory=dict, max_length=_MOST, description="Variables of the service itself.",
        examples=[{"POSTGRES_DB": "shop"}],
    )  # fmt: skip
    ready: tuple[Free, ...] = Field(
        default=(), max_length=_MOST, description="A command in it that ends with 0 when it can be used.",
        examples=[["curl", "-fs", "http://127.0.0.1:9200/"]],
    )  # fmt: skip
    args: tuple[Free, ...] = Field(
        default=(), max_length=_MOST, description="Arguments, after those of its kind, or instead of its image's.",
        examples=[["-c", "max_connections=20"]],
    )  # fmt: skip
    user: Text | None = Field(default=None, description="Who runs it, as its image knows them.", examples=["1000:1000"])

    @model_validator(mode="after")
    def _makes_sense(self) -> ServiceEntry:
        self.as_service("it")
        return self

    def as_service(self, name: str) -> Service:
        """Return the service under its name. Raises ValueError for what makes no sense."""
        image, port, user = self.image or "", self.port or 0, self.user or ""
        if self.kind:
            return known_service(
                self.kind, name, image=image, port=port, env=self.env, ready=self.ready, args=self.args, user=user
            )
        if not image or not port:
            raise ValueError(f"write its kind ({', '.join(KINDS)}), or image and port")
        return Service(name, image, port, "", dict(self.env), self.ready, self.args, user)

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Say that text may stand in its place."""
        reference = handler(core)
        schema = handler.resolve_ref_schema(reference)
        whole = dict(schema)
        schema.clear()
        schema["anyOf"] = [{"type": "string", "examples": ["postgres@16"]}, whole]
        return reference


def kind_alone(value: object) -> object:
    """Return text as the kind of a service; what is none is left to be checked."""
    return {"kind": value} if isinstance(value, str) else value


ServiceForm = Annotated[ServiceEntry, BeforeValidator(kind_alone)]
