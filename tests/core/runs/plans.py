"""Specs and facts for the tests of this package."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from moat.api.container import Mount
from moat.api.runs import NetworkPolicy, RunSpec
from moat.daemon.protocol import SetupResponse
from moat.paths import Home
from moat.runs.plan import Facts, Found

OURS = "-----BEGIN CERTIFICATE-----\nOURS\n-----END CERTIFICATE-----\n"
WORK = Path("/srv/work")
HOME = Home(Path("/home/someone/.moat"))


def a_spec(
    *command: str,
    env: Mapping[str, str] | None = None,
    grants: tuple[str, ...] = (),
    mounts: tuple[Mount, ...] = (),
    policy: NetworkPolicy | None = None,
    image: str = "",
) -> RunSpec:
    return RunSpec(
        workspace=WORK,
        command=command or ("true",),
        env=env or {},
        grants=grants,
        mounts=mounts,
        policy=policy or NetworkPolicy(),
        image=image,
    )


def some_facts(setup: SetupResponse | None = None, paths: Mapping[Path, Found] | None = None, **more: Any) -> Facts:
    return Facts(
        run_id="run_0123456789ab",
        name="calm-otter",
        home=HOME,
        runtime="bubblewrap",
        setup=setup or SetupResponse(ca_certificate=OURS),
        paths={WORK: Found(WORK, "folder"), **(paths or {})},
        **more,
    )


def a_setup(env: Mapping[str, str] | None = None, files: Mapping[str, str] | None = None) -> SetupResponse:
    return SetupResponse(env=dict(env or {}), files=dict(files or {}), ca_certificate=OURS)
