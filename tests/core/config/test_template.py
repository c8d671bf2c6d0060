from __future__ import annotations

import re
from pathlib import Path

from moat.config.checkout import Checkout
from moat.config.project import Project, load_project
from moat.config.template import TEMPLATE

PATH = Path("/w/moat.yaml")


def test_it_loads_and_says_nothing() -> None:
    assert load_project(Checkout(PATH, TEMPLATE.encode())).project == Project()


def test_without_the_comment_signs_it_loads_too_and_says_everything() -> None:
    text = "".join(re.sub(r"^# (?=\S+:( |\n)|  )", "", line) for line in TEMPLATE.splitlines(True)[5:])

    project = load_project(Checkout(PATH, text.encode())).project

    assert project.model_fields_set == set(Project.model_fields)
    assert (project.name, project.command) == ("my-project", ("make", "test"))
    assert (project.agent, project.agents["claude"].yolo) == ("claude", False)
    assert set(project.services) == {"db", "search"}
    assert project.network.model_fields_set == {"policy", "allow", "rules", "host_ports"}
    assert project.container.model_fields_set == {"memory", "cpus", "pids", "ulimits"}
    assert len(project.secrets) == 5
    assert (project.dependencies[0], project.hooks.post_build) == ("node@22", "useradd app")
    assert project.hooks.pre_run == ("npm ci",)
    assert (project.mcp[0].tools, project.ports["web"].port) == (("list_issues",), 3000)
    assert project.mounts[0].read_only
