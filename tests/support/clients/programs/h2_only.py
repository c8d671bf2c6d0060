"""httpx with h2 as its only protocol: GET_URL POST_URL BODY; prints status, version and body of both."""

import importlib
import ssl
import sys
from collections.abc import Iterable

httpx = importlib.import_module("httpx")  # scripts/clients.sh brings it


class OnlyH2(ssl.SSLContext):
    """httpcore offers http/1.1 too, whatever it was told, and this proxy takes that where it is offered."""

    def set_alpn_protocols(self, alpn_protocols: Iterable[str]) -> None:
        del alpn_protocols
        super().set_alpn_protocols(["h2"])


context = OnlyH2(ssl.PROTOCOL_TLS_CLIENT)
context.load_default_certs()
with httpx.Client(http1=False, http2=True, verify=context) as client:
    for answer in (client.get(sys.argv[1]), client.post(sys.argv[2], content=iter([sys.argv[3].encode()]))):
        sys.stdout.write(f"{answer.status_code} {answer.http_version} {answer.text}\n")
