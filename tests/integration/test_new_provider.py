"""A stranger's provider from `moat plugins new` to a sealed run: written, built, installed, tested, granted, spent."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from moat.cli import main
from support.documents import blocks
from support.installation import ROOT, Installation
from support.plugged import plugged_project, run_quietly
from support.upstream import running_upstream

pytestmark = [
    pytest.mark.bubblewrap,
    pytest.mark.timeout(120),
    pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed"),
]

PAGE = ROOT / "docs" / "plugins" / "write-a-provider.md"
TOKEN = "tok-s3cr3t"


def settings(made: Installation, ca_pem: str, pins: dict[str, str]) -> dict[str, object]:
    roots = made.file("roots.pem", ca_pem)
    upstream = {"ca_bundle": str(roots), "resolve": pins, "allow_cidrs": ["127.0.0.0/8"]}
    return {"runtime": "bubblewrap", "upstream": upstream}


@pytest.mark.parametrize(
    ("name", "source", "host", "header", "value", "variable"),
    [
        pytest.param("plain", "", "api.example.com", "Authorization", f"Bearer {TOKEN}", "PLAIN_TOKEN",
                     id="as it is written"),
        pytest.param("brave-search", blocks(PAGE, "python")[0], "api.search.brave.com", "X-Subscription-Token", TOKEN,
                     "BRAVE_API_KEY", id="as the page changes it"),
    ],
)  # fmt: skip
def test_a_new_provider_is_installed_tested_granted_and_spent(
    name: str, source: str, host: str, header: str, value: str, variable: str, tmp_path: Path
) -> None:
    project = tmp_path / f"moat-provider-{name}"
    assert main.run(["plugins", "new", name, str(project)]) == 0
    if source:
        next(project.glob("src/*/__init__.py")).write_text(source)
    with plugged_project(project) as made, running_upstream(hosts=(host,)) as upstream:
        python = made.moat.with_name("python")
        assert " passed" in run_quietly([python, "-m", "pytest", "-q", "-p", "no:cacheprovider"], cwd=project)

        (info,) = json.loads(made.ok("plugins", "info", name, "--json"))["plugins"]
        assert (info["distribution"], info["version"], info["problem"]) == (project.name, "0.1.0", "")
        assert [(grant["name"], grant["hosts"]) for grant in info["grants"]] == [(name, [host])]

        made.configure(settings(made, upstream.ca_pem, upstream.pins(host)))
        made.grant(name, TOKEN)
        work = made.file("work/file", "").parent
        script = f'curl -sS -H "{header}: ${variable}" https://{host}/ && echo " ${variable}"'
        out = made.ok("run", work, "--grant", name, "--", "sh", "-c", script)

    assert (json.loads(out.split(" moat")[0])["ok"], out.split()[-1]) == (True, "moat-placeholder")
    assert [seen.header(header) for seen in upstream.seen] == [value]
