from __future__ import annotations

import json
from dataclasses import replace

from moat.audit.canonical import canonical
from moat.daemon import audit_facts
from moat.daemon.grants import Mark, Resolved
from moat.daemon.protocol import RegisterRequest
from moat.proxy.messages import Configure

from core.daemon.making import RUN_ID, an_info

REQUEST = RegisterRequest(RUN_ID, command=("/usr/bin/agent", "--token", "s3cr3t-argument"), grants=("apple",))


def test_a_run_begins_with_its_plan_and_no_argument_of_its_command() -> None:
    facts = audit_facts.started(REQUEST, replace(an_info(), command=REQUEST.command))

    assert b"s3cr3t" not in canonical(facts)
    assert (facts["program"], facts["grants"], facts["name"]) == ("agent", ["apple"], "calm-otter")
    assert len(str(facts["plan"])) == 64
    given = RegisterRequest(RUN_ID, plan_sha256="a" * 64, secrets=("GH_TOKEN",))
    assert audit_facts.started(given, an_info())["plan"] == "a" * 64
    assert audit_facts.started(given, an_info())["secrets"] == ["GH_TOKEN"]


def test_another_policy_has_another_digest() -> None:
    one = audit_facts.policy(REQUEST)
    two = audit_facts.policy(RegisterRequest(RUN_ID, network_rules=("allow GET a.test/**",)))

    assert one["policy"] == two["policy"] == "permissive"
    assert one["policy_sha256"] != two["policy_sha256"]
    assert one == audit_facts.policy(RegisterRequest("run_ba9876543210"))


def test_what_cannot_be_text_can_be_entered() -> None:
    strange = RegisterRequest(RUN_ID, command=("\udcff",), workspace="/\udcff", network_allow=("\ud800",))

    canonical(audit_facts.started(strange, an_info()))


def test_a_secret_that_was_read_is_named_by_what_tells_it_from_the_next() -> None:
    resolved = Resolved(marks=(Mark("work", "apple", "f" * 64, ""),))

    assert audit_facts.marks_of(resolved) == [{"grant": "apple", "profile": "work", "credential": "f" * 16}]


def test_settings_are_told_apart_without_their_secrets() -> None:
    one = Configure("CERT", "KEY-s3cr3t", proxy="http://user:s3cr3t@proxy.test", allow_cidrs=("10.0.0.0/8",))

    facts = audit_facts.settings(one)

    assert "s3cr3t" not in json.dumps(facts)
    assert facts["allow_cidrs"] == ["10.0.0.0/8"]
    assert facts == audit_facts.settings(Configure("CERT", "other", proxy=one.proxy, allow_cidrs=one.allow_cidrs))
    assert facts != audit_facts.settings(Configure("CERT", "KEY-s3cr3t"))
