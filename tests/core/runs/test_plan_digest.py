from __future__ import annotations

import hashlib
import json
from dataclasses import replace

from moat.api.runs import NetworkPolicy
from moat.audit.canonical import parsed
from moat.daemon.protocol import SetupResponse
from moat.redaction import marks_of
from moat.runs.merge import FILE
from moat.runs.plan import plan
from moat.runs.plan_digest import digest, plan_text

from core.runs.plans import a_spec, some_facts


def test_a_plan_is_told_without_the_values_of_variables() -> None:
    text = plan_text(plan(a_spec("agent", "-p", "\udcff", env={"TOKEN": "s3cr3t-value"}), some_facts()))

    told = parsed(text)
    assert b"s3cr3t" not in text
    assert "TOKEN" in told["variables"]
    assert told["command"] == ["agent", "-p", "\\udcff"]
    assert digest(text) == hashlib.sha256(text).hexdigest()


def test_a_plan_is_told_without_the_secrets_that_its_words_hold() -> None:
    setup = SetupResponse(known=marks_of(["s3cr3t-stored", "s3cr3t\nof two lines", '"s3c\\r3t"']))
    spec = a_spec(
        "agent", "--key=s3cr3t-stored", "s3cr3t\nof two lines", "s3cr3t-given", env={"API_KEY": "s3cr3t-given"}
    )
    spec = replace(spec, origins={"env.API_KEY": "-e"}, policy=NetworkPolicy("strict", ("s3cr3t-stored.test",)))

    told = parsed(plan_text(plan(spec, some_facts(setup))))

    assert told["command"] == ["agent", "--key=[redacted]", "[redacted]", "[redacted]"]
    assert told["allow"] == ["[redacted].test"]
    assert parsed(plan_text(plan(a_spec("x", '"s3c\\r3t"'), some_facts(setup))))["command"] == ["x", "[redacted]"]


def test_whatever_of_a_run_is_another_its_digest_is_too() -> None:
    spec, facts = a_spec(grants=("github",)), some_facts()
    seen = {
        digest(plan_text(plan(each, facts)))
        for each in (spec, replace(spec, command=("other",)), replace(spec, grants=()), replace(spec, env={"A": "b"}))
    }

    assert len(seen) == 4
    assert digest(plan_text(plan(spec, facts))) in seen


def test_secrets_of_a_file_are_named() -> None:
    spec = a_spec(env={"GH": "s3cr3t-x", "PLAIN": "y"})
    spec = replace(spec, origins={"env.GH": f"{FILE}, cmd://op read x", "env.PLAIN": FILE})

    told = json.loads(plan_text(plan(spec, some_facts())))

    assert told["secrets"] == ["GH"]
