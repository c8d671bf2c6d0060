"""Says in a line what a rule does to which requests. Never with what: a plan is shown to whoever asks for it."""

from __future__ import annotations

from typing import assert_never

from moat.api.rules import (
    AddHeader,
    CaptureToken,
    Match,
    OnlyPlaceholder,
    OnlyTools,
    ReadUsage,
    RemoveHeader,
    ReplaceToken,
    RewriteResponse,
    Rule,
    SetHeader,
    Sign,
)

REDACTED = "(redacted)"
_DEEDS: dict[type[Rule], str] = {
    RewriteResponse: "replaces answers that a tool cannot bear",
    CaptureToken: "keeps the tokens of answers outside, and shows placeholders",
    Sign: "signs requests anew; the key stays outside",
    ReadUsage: "reads model and tokens from answers",
}


def rule_words(rule: Rule) -> str:
    """Return the line: which requests, what is done, and for which grant."""
    return f"{_requests(rule.match)}: {_deed(rule)}{f', for {rule.grant}' if rule.grant else ''}"


def _requests(match: Match) -> str:
    parts = [",".join(match.methods), f"{match.authority}{':*' if match.any_port else ''}", " or ".join(match.paths)]
    condition = f"with {match.when_header}" if match.when_header else ""
    condition += f"{' ' if condition else ''}without {match.unless_header}" if match.unless_header else ""
    return " ".join(part for part in (*parts, condition) if part)


def _deed(rule: Rule) -> str:
    match rule:
        case SetHeader() | AddHeader():
            return f"{'sets' if isinstance(rule, SetHeader) else 'adds'} {rule.name}: {REDACTED}"
        case RemoveHeader():
            return f"removes {rule.name}"
        case ReplaceToken():
            return f"replaces {rule.placeholder} in {', '.join(rule.where)} by {REDACTED}"
        case OnlyPlaceholder():
            return f"lets through nothing but the placeholder in {rule.where} {rule.name}"
        case OnlyTools():
            return f"lets only these tools be called: {', '.join(rule.tools)}"
        case RewriteResponse() | CaptureToken() | Sign() | ReadUsage():
            return _DEEDS[type(rule)]
        case _:
            assert_never(rule)
