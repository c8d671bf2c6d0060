"""The sections of moat.yaml that say what a run finds: its workspace, its mounts, what is run besides its command;
and what is kept of it.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from moat.config.values import MOST, ExcludePattern, Free, Scripts, Section, Text, Time


class MountEntry(Section):
    """A path of this machine that is shown inside."""

    source: Text = Field(
        description="Path on this machine; relative to moat.yaml, or ~ for your home.", examples=["./data"]
    )
    target: Text = Field(description="Absolute path inside.", examples=["/data"])
    read_only: bool = Field(default=False, description="Whether the run cannot write there.", examples=[True])
    exclude: tuple[ExcludePattern, ...] = Field(
        default=(), max_length=MOST, description="What of it is not shown, as .gitignore writes it.",
        examples=[["*.key", "secrets/**"]],
    )  # fmt: skip


class Workspace(Section):
    """How a run works on the folder."""

    mode: Literal["bind", "copy"] = Field(
        default="bind", description="bind: on the folder itself. copy: on a copy; see `moat apply`.", examples=["copy"]
    )
    exclude: tuple[ExcludePattern, ...] = Field(
        default=(), max_length=MOST, description="What of it is not shown, and not copied, as .gitignore writes it.",
        examples=[[".env", "node_modules"]],
    )  # fmt: skip


class Trace(Section):
    """What the run's trace holds."""

    bodies: bool = Field(
        default=False, description="Headers and beginnings of bodies too, without secrets.", examples=[True]
    )


class Hooks(Section):
    """What is run besides the command."""

    post_build: Free = Field(
        default="", description="Shell, run as root in the image that is built, after its dependencies.",
        examples=["useradd app"],
    )  # fmt: skip
    pre_run: Scripts = Field(
        default=(), description="Shell, one or several, run inside before the command, with all that it has.",
        examples=[["npm ci"]],
    )  # fmt: skip


class AgentSection(Section):
    """How one agent works here."""

    model: Annotated[str, StringConstraints(max_length=128, pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/\[\]-]*$")] | None = (
        Field(default=None, description="The model to ask, as --model.", examples=["opus"])
    )
    yolo: bool = Field(
        default=True, description="Whether it acts without asking; it is sealed. As without --noyolo.", examples=[False]
    )


class Snapshots(Section):
    """When the files of the workspace are kept."""

    before: bool | None = Field(default=None, description="When a run begins, as --snapshot.", examples=[True])
    every: Time | None = Field(
        default=None, description="While it works, where something has changed, as --snapshot-every.", examples=["10m"]
    )
