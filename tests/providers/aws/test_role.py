from __future__ import annotations

import pytest
from moat.api import Credential, GrantFailed
from moat_provider_aws.policy import checked_policy, summary
from moat_provider_aws.role import Role, parse_role, role_of

ARN = "arn:aws:iam::123456789012:role/team/agent"
POLICY = checked_policy('{"Statement": {"Effect": "Allow", "Action": "s3:GetObject", "Resource": "*"}}')


def test_a_role_has_honest_defaults() -> None:
    role = parse_role(ARN, {})

    assert role == Role(ARN, "us-east-1", 900, "", "", "sign")
    assert role.metadata == {"region": "us-east-1", "session_duration_s": "900", "mode": "sign"}


def test_every_option_is_kept() -> None:
    options = {"region": "eu-west-3", "session-duration": "1h", "external-id": "abc/1", "aws-profile": "dev"}

    assert parse_role(ARN, options | {"mode": "endpoint"}).metadata == {
        "region": "eu-west-3",
        "session_duration_s": "3600",
        "external_id": "abc/1",
        "profile": "dev",
        "mode": "endpoint",
    }


def test_a_grant_that_says_no_mode_is_an_older_one() -> None:
    assert role_of(Credential("aws", ARN, "--role")).mode == "endpoint"


def test_another_mode_is_refused() -> None:
    with pytest.raises(GrantFailed, match="--mode must be sign or endpoint"):
        parse_role(ARN, {"mode": "both"})


def test_the_profile_of_the_shell_is_the_default() -> None:
    assert parse_role(ARN, {}, "shell").profile == "shell"
    assert parse_role(ARN, {"aws-profile": "typed"}, "shell").profile == "typed"


@pytest.mark.parametrize(
    "arn", [ARN, "arn:aws-cn:iam::000000000000:role/a", "arn:aws-us-gov:iam::123456789012:role/a+=,.@_-"]
)
def test_roles_of_every_partition_pass(arn: str) -> None:
    assert parse_role(f" {arn}\n", {}).arn == arn


@pytest.mark.parametrize(
    ("arn", "problem"),
    [
        ("", "no role was named"),
        ("agent", "must start with arn:"),
        ("arn:aws:iam", "6 parts between colons, and it has 3"),
        ("arn:aws:iam::123456789012:role/a:b", "and it has 7"),
        ("arn:aws-eu:iam::123456789012:role/a", "partition must be one of aws, aws-cn, aws-us-gov"),
        ("arn:aws:sts::123456789012:role/a", "must be an IAM role"),
        ("arn:aws:iam:eu-west-1:123456789012:role/a", "must have no region"),
        ("arn:aws:iam:::role/a", "account must be 12 digits"),
        ("arn:aws:iam::1234567890123:role/a", "account must be 12 digits"),
        ("arn:aws:iam::123456789012:user/a", "ARN of a role"),
        ("arn:aws:iam::123456789012:role", "ARN of a role"),
        ("arn:aws:iam::123456789012:role/", "name must be 1 to 64"),
        ("arn:aws:iam::123456789012:role/a b", "name must be 1 to 64"),
        (f"arn:aws:iam::123456789012:role/{'a' * 65}", "name must be 1 to 64"),
        ("arn:aws:iam::123456789012:role/p q/a", "path has characters"),
        ("arn:aws:iam::123456789012:role//a", "path has characters"),
    ],
)
def test_a_wrong_role_is_refused_by_the_part_that_is_wrong(arn: str, problem: str) -> None:
    with pytest.raises(GrantFailed, match=problem) as caught:
        parse_role(arn, {})

    assert "nothing was saved" in caught.value.problem
    assert "moat grant aws --role" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "seconds"), [("15m", 900), ("900", 900), ("900s", 900), ("12h", 43_200), ("720m", 43_200)]
)
def test_durations_have_units(text: str, seconds: int) -> None:
    assert parse_role(ARN, {"session-duration": text}).duration_s == seconds


@pytest.mark.parametrize("text", ["", "899s", "14m", "13h", "1d", "1.5h", "-1h", "h", "soon", "99999999"])
def test_a_duration_that_aws_would_refuse_is_refused_here(text: str) -> None:
    with pytest.raises(GrantFailed, match="from 15m to 12h"):
        parse_role(ARN, {"session-duration": text})


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("region", "Europe"),
        ("region", ""),
        ("region", "eu-west-1 "),
        ("external-id", "x"),
        ("external-id", "a b"),
        ("aws-profile", "a b"),
    ],
)
def test_other_options_are_checked_too(option: str, value: str) -> None:
    with pytest.raises(GrantFailed):
        parse_role(ARN, {option: value})


def test_a_stored_role_is_the_one_that_was_typed() -> None:
    role = parse_role(ARN, {"region": "eu-west-3", "session-duration": "1h", "external-id": "abc"}, "dev")

    assert role_of(Credential("aws", role.arn, "--role", role.metadata)) == role
    assert role_of(Credential("aws", ARN, "the registration")) == Role(ARN)


@pytest.mark.parametrize(
    "metadata", [{"region": "x"}, {"session_duration_s": "5"}, {"external_id": " "}, {"profile": "a b"}]
)
def test_what_a_registration_brought_is_checked_like_what_is_typed(metadata: dict[str, str]) -> None:
    with pytest.raises(GrantFailed) as caught:
        role_of(Credential("aws", ARN, "the registration", metadata))

    assert "saved" not in caught.value.problem


@pytest.mark.parametrize("option", ["aws-profile", "profile"])
def test_a_profile_can_stand_in_the_place_of_a_role(option: str) -> None:
    role = parse_role("", {option: "dev"})

    assert role == Role("", profile="dev", mode="sign")
    assert (role.secret, role.metadata["spends"]) == ("profile:dev", "profile")


def test_the_profile_of_the_shell_is_not_taken_where_nothing_was_named() -> None:
    with pytest.raises(GrantFailed, match="no role was named, and no profile of yours") as caught:
        parse_role("", {}, "shell")

    assert "moat grant aws --aws-profile NAME" in caught.value.hint


def test_two_profiles_are_refused_and_one_said_twice_is_not() -> None:
    assert parse_role(ARN, {"aws-profile": "dev", "profile": "dev"}).profile == "dev"
    with pytest.raises(GrantFailed, match="name two AWS profiles"):
        parse_role(ARN, {"aws-profile": "dev", "profile": "prod"})


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"profile": ""}, "no role was named, and no profile"),
        ({"profile": "a b"}, "has an impossible name"),
        ({"profile": "dev\n"}, "has an impossible name"),
        ({"profile": "x" * 129}, "has an impossible name"),
        ({"profile": "dev", "external-id": "abc"}, "--external-id is for a role"),
    ],
)
def test_what_no_profile_can_have_is_refused(options: dict[str, str], problem: str) -> None:
    with pytest.raises(GrantFailed, match=problem) as caught:
        parse_role("", options)

    assert caught.value.problem.endswith("; nothing was saved")
    assert caught.value.hint


@pytest.mark.parametrize(("arn", "options"), [(ARN, {}), (ARN, {"profile": "dev"}), ("", {"profile": "dev"})])
@pytest.mark.parametrize("policy", ["", POLICY])
def test_what_is_stored_comes_back_whole(arn: str, options: dict[str, str], policy: str) -> None:
    role = parse_role(arn, options, policy=policy)

    assert role_of(Credential("aws", role.secret, "--role", role.metadata)) == role
    assert "GetObject" not in str(role.metadata)
    assert role.metadata.get("session_policy", "") == (summary(policy) if policy else "")
    assert role.told("--role").startswith("--role with session policy " if policy else "--role")


@pytest.mark.parametrize("secret", ["profile:dev", f"{ARN} {POLICY}"])
def test_a_registration_brings_a_role_and_nothing_else(secret: str) -> None:
    with pytest.raises(GrantFailed):
        role_of(Credential("aws", secret, "the registration", {"region": "eu-west-3"}))


@pytest.mark.parametrize(
    ("role", "partition"),
    [
        (Role(ARN.replace("arn:aws:", "arn:aws-cn:")), "aws-cn"),
        (Role("", "eu-west-3", profile="dev"), "aws"),
        (Role("", "cn-north-1", profile="dev"), "aws-cn"),
        (Role("", "us-gov-west-1", profile="dev"), "aws-us-gov"),
    ],
)
def test_hosts_are_those_of_the_partition(role: Role, partition: str) -> None:
    assert role.partition == partition
