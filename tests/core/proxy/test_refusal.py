from __future__ import annotations

import pytest
import yaml
from moat.net.policy import Objection
from moat.proxy.refusal import (
    Refusal,
    closed,
    denied,
    in_moat_yaml,
    late,
    malformed,
    misdirected,
    undialable,
    unidentified,
    unreachable,
)


def test_a_policy_denial_is_403_with_the_exact_line_to_add_in_head_and_body() -> None:
    answer = denied(Objection("strict policy: a.example is not allowed", "--allow-host a.example")).render()

    assert answer.startswith(b"HTTP/1.1 403 Forbidden\r\n")
    assert b"X-Moat-Blocked: policy\r\n" in answer
    assert b"X-Moat-Allow: --allow-host a.example\r\n" in answer
    assert answer.endswith(
        b'to allow it, add: --allow-host a.example; or to moat.yaml: network: {allow: ["a.example"]}\n'
    )
    assert b"Connection: close" not in answer


def test_a_missing_token_is_407_with_a_challenge_and_keeps_the_connection() -> None:
    answer = unidentified().render()

    assert answer.startswith(b"HTTP/1.1 407 ")
    assert b'Proxy-Authenticate: Basic realm="moat"\r\n' in answer
    assert b"Connection: close" not in answer


def test_only_407_asks_for_proxy_credentials() -> None:
    assert b"Proxy-Authenticate" not in denied(Objection("x")).render()


@pytest.mark.parametrize(
    ("refusal", "status"),
    [(malformed("x"), 400), (misdirected("x"), 421), (closed(), 503)],
)
def test_what_cannot_go_on_says_close(refusal: Refusal, status: int) -> None:
    answer = refusal.render()

    assert answer.startswith(f"HTTP/1.1 {status} ".encode())
    assert b"Connection: close\r\n" in answer


def test_upstream_trouble_names_its_kind() -> None:
    assert b"X-Moat-Error: certificate\r\n" in unreachable("x", "certificate").render()
    assert b"X-Moat-Error: timeout\r\n" in late("x").render()
    assert late("x").outcome == "failed"


def test_an_address_refusal_names_the_setting_except_for_metadata() -> None:
    assert (
        undialable("a.example", "10.0.0.1", "10.0.0.1 is private").allow_line
        == "upstream: {allow_cidrs: [10.0.0.1/32]}"
    )
    assert (
        undialable("a.example", "fd00::1", "fd00::1 is private").allow_line == "upstream: {allow_cidrs: [fd00::1/128]}"
    )
    assert undialable("a.example", "169.254.169.254", "metadata").allow_line == ""


def test_an_answer_to_head_has_no_body_but_its_length() -> None:
    answer = malformed("x").render("HEAD")

    assert answer.endswith(b"\r\n\r\n")
    assert b"Content-Length: 8\r\n" in answer


def test_what_a_reason_quotes_cannot_break_the_answer() -> None:
    assert "é".encode() not in malformed("é").render()


def test_a_line_that_helps_only_before_the_rule_that_denies_says_so() -> None:
    found = Objection("denied by the rule 'deny a.example'", "--rule 'allow a.example'", "deny a.example")

    advice = denied(found).render().partition(b"\r\n\r\n")[2].splitlines()[1]
    assert advice.startswith(b"to allow it, add, before it: --rule 'allow a.example'; ")
    assert advice.endswith(b"""or to moat.yaml: network: {rules: ["allow a.example"]}""")


def test_what_goes_into_config_yaml_is_said_to_go_there() -> None:
    advice = undialable("a.example", "10.0.0.1", "10.0.0.1 is private").advice

    assert advice == "to allow it, add to config.yaml: upstream: {allow_cidrs: [10.0.0.1/32]}"


@pytest.mark.parametrize(
    ("flag", "said"),
    [
        ("--allow-host a.example:8443", {"allow": ["a.example:8443"]}),
        ("""--rule 'allow GET a.example/it'"'"'s/**'""", {"rules": ["allow GET a.example/it's/**"]}),
        ("--host-port 5432", {"host_ports": [5432]}),
    ],
)
def test_each_flag_that_is_advised_has_its_line_of_moat_yaml(flag: str, said: object) -> None:
    found = yaml.safe_load(in_moat_yaml(flag))

    assert found == {"network": said}
    assert in_moat_yaml("upstream: {}") == ""


def test_an_answer_may_have_the_form_of_the_service() -> None:
    refusal = Refusal(403, "no", content_type="application/xml", body="<Error>ü</Error>")

    assert refusal.answer() == (
        [("Content-Type", "application/xml"), ("Content-Length", "19")],
        b"<Error>\\xfc</Error>",
    )
