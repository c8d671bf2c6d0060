"""What AWS does with a signature of version 4: works it out again from the request, as documented, and compares.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from urllib.parse import parse_qsl, quote, unquote, urlsplit


def is_signed(secret: str, method: str, url: str, headers: Mapping[str, str], body_sha256: str, *, is_s3: bool) -> bool:
    """Return whether a request is signed with secret. url: as it is sent. headers: by lower-case name."""
    parts = urlsplit(url)
    query = parse_qsl(parts.query, keep_blank_values=True)
    if "authorization" in headers:
        algorithm, _, rest = headers["authorization"].partition(" ")
        fields = dict(each.strip().split("=", 1) for each in rest.split(","))
        credential, names, signature = fields["Credential"], fields["SignedHeaders"], fields["Signature"]
        date, payload = headers["x-amz-date"], headers.get("x-amz-content-sha256", body_sha256)
    else:
        said = dict(query)
        algorithm, credential, names = said["X-Amz-Algorithm"], said["X-Amz-Credential"], said["X-Amz-SignedHeaders"]
        signature, date = said["X-Amz-Signature"], said["X-Amz-Date"]
        query = [pair for pair in query if pair[0] != "X-Amz-Signature"]
        payload = "UNSIGNED-PAYLOAD" if is_s3 else body_sha256
    _, *scope = credential.split("/")
    path = parts.path if is_s3 else quote(parts.path, safe="/~-._")
    canonical = "\n".join((
        method, path if not is_s3 else quote(unquote(path), safe="/~-._"),
        "&".join(sorted(f"{quote(name, safe='~-._')}={quote(value, safe='~-._')}" for name, value in query)),
        *(f"{name}:{' '.join(headers[name].split())}" for name in names.split(";")), "", names, payload,
    ))  # fmt: skip
    key = f"AWS4{secret}".encode()
    for part in scope:
        key = hmac.digest(key, part.encode(), "sha256")
    text = "\n".join((algorithm, date, "/".join(scope), hashlib.sha256(canonical.encode()).hexdigest()))
    return hmac.new(key, text.encode(), "sha256").hexdigest() == signature
