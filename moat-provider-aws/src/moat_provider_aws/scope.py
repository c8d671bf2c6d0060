"""What a request of an AWS client says about its signature, and whether that fits the host it is for. Pure.

    Authorization: AWS4-HMAC-SHA256 Credential=KEY/20260131/eu-west-3/s3/aws4_request, SignedHeaders=host;…, Signature=…
    ?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=KEY%2F20260131%2F…&X-Amz-SignedHeaders=…      a presigned URL

AWS Signature Version 4: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import parse_qsl

from moat.api import Unsignable, Unsigned

from moat_provider_aws.role import REGION

PLACEHOLDER_ID = "AKIAMOAT000000000000"
PLACEHOLDER_KEY = "moat-placeholder-of-no-use-outside-of-this"
ALGORITHM = "AWS4-HMAC-SHA256"
_SUFFIXES = ("amazonaws.com.cn", "amazonaws.com", "api.aws", "on.aws")
_NOT_A_SERVICE = ("dualstack", "vpce", "private")
# Services that sign by another name than their hosts bear, where the one does not begin with the other.
_ALIASES = {
    "connect": ("execute-api",), "contact-lens": ("connect",), "email": ("ses",), "mail-manager": ("ses",),
    "iot": ("iotdata", "iotdevicegateway", "iot-jobs-data", "IoTSecuredTunneling"), "marketplace": ("aws-marketplace",),
    "memory-db": ("memorydb",), "migrationhub-config": ("mgh",), "oidc": ("sso-oauth",),
    "pinpoint": ("mobiletargeting", "sms-voice"), "sso": ("awsssoportal",),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Scope:
    """One signature's. signed: names of the headers that it covers, lower case. is_query: it stands in the query."""

    key_id: str
    region: str
    service: str
    signed: tuple[str, ...]
    is_query: bool = False


def scope_of(request: Unsigned) -> Scope | None:
    """Return what the client's signature says; None for a request without one. Raises Unsignable for other kinds."""
    values = request.headers.get_all("authorization")
    query = dict(parse_qsl(request.target.partition("?")[2], keep_blank_values=True))
    if "X-Amz-Algorithm" in query or "X-Amz-Signature" in query:
        if values:
            raise Unsignable("the request is signed in its header and in its query; one of them is enough")
        fields = {
            "Credential": query.get("X-Amz-Credential", ""),
            "SignedHeaders": query.get("X-Amz-SignedHeaders", ""),
        }
        return _scope(query.get("X-Amz-Algorithm", ""), fields, is_query=True)
    if "AWSAccessKeyId" in query and "Signature" in query:
        raise Unsignable("the request is signed with version 2 of AWS's signatures; moat signs version 4 only")
    if not values:
        return None
    if len(values) > 1:
        raise Unsignable("the request has more than one Authorization")
    algorithm, _, rest = values[0].strip().partition(" ")
    if algorithm == "AWS":
        raise Unsignable("the request is signed with version 2 of AWS's signatures; moat signs version 4 only")
    pairs = (part.strip().partition("=") for part in rest.split(","))
    return _scope(algorithm, {name: value for name, _, value in pairs})


def check_host(scope: Scope, authority: str) -> None:
    """Raise Unsignable where a signature is for another service or region than its host's."""
    host = authority.partition(":")[0]
    region, service = _service_at(host)
    if region and scope.region != region:
        raise Unsignable(f"the request is signed for {scope.region}, and {host} is in {region}")
    if not _is_of(scope.service, service):
        raise Unsignable(f"the request is signed for the service {scope.service}, and {host} is none of its hosts")


def _scope(algorithm: str, fields: dict[str, str], *, is_query: bool = False) -> Scope:
    if algorithm == "AWS4-ECDSA-P256-SHA256":
        raise Unsignable("the request is signed with SigV4a, for several regions; moat signs for one region only")
    if algorithm != ALGORITHM:
        raise Unsignable(f"moat does not sign {algorithm[:40]!r}; AWS clients use {ALGORITHM}")
    parts = fields.get("Credential", "").split("/")
    if len(parts) != 5 or parts[4] != "aws4_request" or not all(part.isprintable() and part for part in parts):
        raise Unsignable("the credential of the signature is not KEY/DATE/REGION/SERVICE/aws4_request")
    signed = tuple(name.lower() for name in fields.get("SignedHeaders", "").split(";") if name)
    return Scope(parts[0], parts[2], parts[3], signed, is_query)


def _service_at(host: str) -> tuple[str, str]:
    """Return region and service label of a host of AWS's; "" for a region that it does not name."""
    suffix = next((each for each in _SUFFIXES if host.endswith(f".{each}")), "")
    labels = [label for label in host.removesuffix(suffix).strip(".").split(".") if label not in _NOT_A_SERVICE]
    at = next((n for n in reversed(range(len(labels))) if REGION.fullmatch(labels[n])), None)
    if at is None:
        return "", labels[-1] if labels else ""
    after = labels[at + 1 :]  # domain.REGION.es.amazonaws.com
    return labels[at], after[0] if after else labels[at - 1] if at else ""


def _is_of(service: str, label: str) -> bool:
    """Whether a service, as signatures name it, has hosts with this label: bedrock has `bedrock-runtime`."""
    last = label.rpartition("-")[2]
    names = (*_ALIASES.get(label, ()), *_ALIASES.get(last, ()))
    return bool(service) and (label.startswith(service) or last == service or service in names)
