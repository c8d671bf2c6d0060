"""AWS on loopback: moto's STS, IAM and S3, which check every signature and every policy, a session's own too.

with running_aws() as aws: … aws.url over http, aws.pin over TLS, aws.role, aws.key
"""

from __future__ import annotations

import contextlib
import json
import logging
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import boto3  # type: ignore[import-untyped] # boto3 has no types
import requests
from moto import settings
from moto.core.authorization import ActionAuthenticatorMixin
from moto.iam.access_control import AssumedRoleAccessKey, IAMPolicy, IAMRequestBase, PermissionResult
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from moto.sts.models import sts_backends
from werkzeug.serving import make_server

from support.installation import Installation
from support.upstream import MadeCa, make_test_ca

REGION = "eu-west-3"
HOST = f"s3.{REGION}.amazonaws.com"
STS_HOST = f"sts.{REGION}.amazonaws.com"
BUCKET = "moat-bucket"
PARAMETER = "/prod/password"  # a secure string
_WRITES = ["s3:CreateBucket", "s3:PutObject", "s3:GetObject", "sts:GetCallerIdentity"]


@dataclass
class Aws:
    """url: for the host. pin: what upstream.resolve names for its hosts. key: of the user who may assume role.

    own: of a user who may do what the role may.
    """

    url: str
    pin: str
    ca: MadeCa
    role: str = ""
    key: tuple[str, str] = field(default=("", ""), repr=False)
    own: tuple[str, str] = field(default=("", ""), repr=False)

    def client(self, service: str, key: str, secret: str, token: str | None = None) -> Any:
        """Return a boto3 client that has these keys."""
        names = ("aws_access_key_id", "aws_secret_access_key", "aws_session_token")
        keys = dict(zip(names, (key, secret, token), strict=True))
        return boto3.client(service, endpoint_url=self.url, region_name=REGION, **keys)

    def serve(self, made: Installation, **others: str) -> None:
        """Have an installation find its hosts here, with a profile of the user's. others: as for write_profile."""
        roots = made.file("roots.pem", self.ca.pem)
        resolve = {HOST: self.pin, STS_HOST: self.pin}
        made.configure({"upstream": {"allow_cidrs": ["127.0.0.0/8"], "ca_bundle": str(roots), "resolve": resolve}})
        self.write_profile(made.home, **others)

    def write_profile(self, home: Path, **others: str) -> None:
        """Write what `aws configure` does, and where STS is. others: settings of further profiles, by their names."""
        folder = home / ".aws"
        folder.mkdir(exist_ok=True)
        more = "".join(f"[profile {name}]\nendpoint_url = {self.url}\n{text}\n" for name, text in others.items())
        (folder / "config").write_text(f"[default]\nendpoint_url = {self.url}\n{more}")
        key, secret = self.key
        text = f"[default]\naws_access_key_id = {key}\naws_secret_access_key = {secret}\n"
        (folder / "credentials").write_text(text)


@contextlib.contextmanager
def running_aws() -> Iterator[Aws]:
    """Run it in threads: a role that may write to S3, and a user who may assume it and read parameters, no more."""
    ca = make_test_ca()
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    with _serving(None) as port, _serving(ca.server_context(HOST, STS_HOST)) as tls_port:
        aws = Aws(f"http://127.0.0.1:{port}", f"127.0.0.1:{tls_port}", ca)
        _populate(aws)
        counting = mock.patch.object(settings, "INITIAL_NO_AUTH_ACTION_COUNT", 0.0)
        with counting, mock.patch.object(IAMRequestBase, "check_action_permitted", _check_session_too):
            ActionAuthenticatorMixin.request_count = 0
            yield aws


_check_action = IAMRequestBase.check_action_permitted


def _check_session_too(request: Any, resource: str) -> None:
    """Check an action as moto does, and against the policy of the session, which moto keeps and does not look at."""
    _check_action(request, resource)
    key = request._access_key
    if request._action == "sts:GetCallerIdentity" or not isinstance(key, AssumedRoleAccessKey):
        return
    partition = sts_backends[key.account_id][key.partition]
    session = partition.get_assumed_role_from_access_key(key._access_key_id)
    if session is None or not session.policy:
        return
    if IAMPolicy(session.policy).is_action_permitted(request._action, resource) != PermissionResult.PERMITTED:
        request._raise_access_denied()


def _populate(aws: Aws) -> None:
    """Make role and user in an AWS that has nothing yet. Nothing is checked until then."""
    requests.post(f"{aws.url}/moto-api/reset", timeout=20).raise_for_status()
    iam = aws.client("iam", "any", "any")
    trust = _policy(["sts:AssumeRole", "sts:TagSession"], Principal={"AWS": "*"})
    aws.role = iam.create_role(RoleName="agent", AssumeRolePolicyDocument=trust)["Role"]["Arn"]
    iam.put_role_policy(RoleName="agent", PolicyName="p", PolicyDocument=_policy(_WRITES, Resource="*"))
    iam.create_user(UserName="dev")
    allowed = _policy(["sts:AssumeRole", "ssm:GetParameter"], Resource="*")
    iam.put_user_policy(UserName="dev", PolicyName="p", PolicyDocument=allowed)
    ssm = aws.client("ssm", "any", "any")
    ssm.put_parameter(Name=PARAMETER, Type="SecureString", Value="s3cr3t-of-ssm")
    iam.create_user(UserName="own")
    iam.put_user_policy(UserName="own", PolicyName="p", PolicyDocument=_policy(_WRITES, Resource="*"))
    aws.key, aws.own = (_key_of(iam, name) for name in ("dev", "own"))


def _key_of(iam: Any, user: str) -> tuple[str, str]:
    made = iam.create_access_key(UserName=user)["AccessKey"]
    return (made["AccessKeyId"], made["SecretAccessKey"])


def _policy(actions: list[str], **more: object) -> str:
    statement = {"Effect": "Allow", "Action": actions, **more}
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


@contextlib.contextmanager
def _serving(context: ssl.SSLContext | None) -> Iterator[int]:
    app = DomainDispatcherApplication(create_backend_app)
    server = make_server("127.0.0.1", 0, app, threaded=True, ssl_context=context)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join(10)
