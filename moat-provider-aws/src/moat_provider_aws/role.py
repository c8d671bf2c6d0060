"""What a user may say about a role, or a profile in its place, checked strictly. Pure; errors repeat nothing typed.

What is stored as the secret, and which of the metadata says that it is more than an ARN:

    arn:aws:iam::123456789012:role/path/name
    profile:dev                                  spends: profile
    either of them {"Version":…}                 session_policy: which one
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from moat.api import Credential, GrantFailed

from moat_provider_aws.policy import checked_policy, digest, summary

PARTITIONS = ("aws", "aws-cn", "aws-us-gov")
MODES = ("sign", "endpoint")
DEFAULT_REGION = "us-east-1"
SHORTEST_S, LONGEST_S = 15 * 60, 12 * 60 * 60  # what AssumeRole accepts for DurationSeconds
OWN = "profile:"  # what a credential begins with that is a profile's own
HINT = "run: moat grant aws --role arn:aws:iam::ACCOUNT:role/NAME, or: moat grant aws --aws-profile NAME"

_UNSAVED = "; nothing was saved"
_ACCOUNT = re.compile(r"[0-9]{12}")
_NAME = re.compile(r"[A-Za-z0-9_+=,.@-]{1,64}")
_PATH = re.compile(r"(?:[\x21-\x2e\x30-\x7e]+/)*")
REGION = re.compile(r"[a-z]{2,8}(?:-[a-z]{2,16}){1,3}-[0-9]{1,2}")
_DURATION = re.compile(r"([0-9]{1,6})(s|m|h|)")
_EXTERNAL_ID = re.compile(r"[A-Za-z0-9_+=,.@:/-]{2,1224}")
_PROFILE = re.compile(r"[\x21-\x7e]{1,128}")
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600}


@dataclass(frozen=True, slots=True)
class Role:
    """A role and how it is assumed. external_id, profile, policy: empty when there is none.

    arn: "" where the credentials of profile are spent as they are. mode: who signs, "sign" is moat.
    """

    arn: str
    region: str = DEFAULT_REGION
    duration_s: int = SHORTEST_S
    external_id: str = ""
    profile: str = ""
    mode: str = "endpoint"
    policy: str = ""

    @property
    def metadata(self) -> dict[str, str]:
        """What is stored to be read without the key; empty parts left out."""
        facts = {
            "region": self.region,
            "session_duration_s": str(self.duration_s),
            "external_id": self.external_id,
            "profile": self.profile,
            "mode": self.mode,
            "spends": "" if self.arn else "profile",
            "session_policy": summary(self.policy) if self.policy else "",
        }
        return {key: value for key, value in facts.items() if value}

    @property
    def secret(self) -> str:
        """What is stored encrypted."""
        spent = self.arn or f"{OWN}{self.profile}"
        return f"{spent} {self.policy}" if self.policy else spent

    @property
    def partition(self) -> str:
        """Which of AWS's separate worlds it is in."""
        if self.arn:
            return self.arn.split(":")[1]
        found = self.region.partition("-")[0]
        return "aws-us-gov" if self.region.startswith("us-gov-") else "aws-cn" if found == "cn" else "aws"

    def told(self, source: str) -> str:
        """Return source with what limits it, for `moat grant list`."""
        return f"{source} with session policy {digest(self.policy)}" if self.policy else source


def parse_role(arn: str, options: Mapping[str, str], default_profile: str = "", policy: str = "") -> Role:
    """Return a role from what was typed. policy: checked already. Raises GrantFailed naming the part that is wrong."""
    region = options.get("region", DEFAULT_REGION)
    external_id = options.get("external-id", "")
    typed = profile_typed(options)
    profile = default_profile if typed is None and arn.strip() else typed or ""
    _demand(REGION.fullmatch(region), "--region names no AWS region", "write it like us-east-1")
    _demand(
        not external_id or _EXTERNAL_ID.fullmatch(external_id),
        "--external-id must be 2 to 1224 letters, digits or _+=,.@:/-",
        "ask the owner of the role",
    )
    _demand(
        not profile or _PROFILE.fullmatch(profile),
        "the AWS profile has an impossible name",
        "run: aws configure list-profiles",
    )
    mode = options.get("mode", "sign")
    _demand(mode in MODES, f"--mode must be {' or '.join(MODES)}", "run: moat grant aws --help")
    duration_s = _duration(options.get("session-duration", "15m"))
    if not arn.strip() and profile:
        _demand(not external_id, "--external-id is for a role, and none was named", HINT)
        return Role("", region, duration_s, "", profile, mode, policy)
    return Role(_checked_arn(arn.strip()), region, duration_s, external_id, profile, mode, policy)


def profile_typed(options: Mapping[str, str]) -> str | None:
    """Return the profile that was named, by either of its options. Raises GrantFailed for two different ones."""
    named = [options[name] for name in ("aws-profile", "profile") if name in options]
    _demand(len(set(named)) < 2, "--aws-profile and --profile name two AWS profiles", "leave out one of them")
    return named[0] if named else None


def role_of(credential: Credential) -> Role:
    """Return the role that a credential stands for, stored or brought by a registration. Raises GrantFailed."""
    facts = credential.metadata
    typed = {
        "region": facts.get("region", DEFAULT_REGION),
        "session-duration": facts.get("session_duration_s", str(SHORTEST_S)),
        "external-id": facts.get("external_id", ""),
        "aws-profile": facts.get("profile", ""),
        "mode": facts.get("mode", "endpoint"),  # of grants that say nothing: older ones, and roles of registrations
    }
    arn, policy = credential.secret, ""
    try:
        if facts.get("session_policy"):
            arn, _, text = arn.partition(" ")
            policy = checked_policy(text)
        if facts.get("spends") == "profile":
            typed["aws-profile"], arn = arn.removeprefix(OWN), ""
        return parse_role(arn, typed, "", policy)
    except GrantFailed as wrong:
        raise GrantFailed(wrong.problem.removesuffix(_UNSAVED), hint=wrong.hint) from None


def _checked_arn(arn: str) -> str:
    _demand(arn, "no role was named, and no profile of yours")
    parts = arn.split(":")
    _demand(parts[0] == "arn", "the role must start with arn:")
    _demand(len(parts) == 6, f"the role must have 6 parts between colons, and it has {len(parts)}")
    _, partition, service, region, account, resource = parts
    _demand(partition in PARTITIONS, f"the role's partition must be one of {', '.join(PARTITIONS)}")
    _demand(service == "iam", "the role must be an IAM role (arn:…:iam:…)")
    _demand(not region, "the role must have no region: IAM is global")
    _demand(_ACCOUNT.fullmatch(account), "the role's account must be 12 digits")
    kind, slash, rest = resource.partition("/")
    _demand(kind == "role" and slash, "it must be the ARN of a role (…:role/NAME)")
    path, name = rest[: rest.rfind("/") + 1], rest[rest.rfind("/") + 1 :]
    _demand(_NAME.fullmatch(name), "the role's name must be 1 to 64 letters, digits or _+=,.@-")
    _demand(_PATH.fullmatch(path) and len(path) <= 512, "the role's path has characters that IAM does not allow")
    return arn


def _duration(text: str) -> int:
    match = _DURATION.fullmatch(text.strip())
    seconds = int(match[1]) * _SECONDS[match[2]] if match else 0
    _demand(
        SHORTEST_S <= seconds <= LONGEST_S,
        "--session-duration must be from 15m to 12h",
        "write it like 15m, 1h or 3600s",
    )
    return seconds


def _demand(holds: object, problem: str, hint: str = HINT) -> None:
    if not holds:
        raise GrantFailed(f"{problem}{_UNSAVED}", hint=hint)
