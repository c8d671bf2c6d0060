"""What the proxy listener answers itself, on origin-form targets: the probe of a run's gate, and nothing else yet."""

from __future__ import annotations

from moat.proxy.admit import LiveRun
from moat.proxy.http1 import Request, render_response

PROBE = "/_moat/probe"


def local_answer(run: LiveRun, request: Request) -> bytes | None:
    """Return a whole answer for what is the proxy's own, or None for what is to be proxied.

    The probe is answered before the run is open: that is how the gate knows that its door leads to this daemon.
    """
    if request.method != "GET" or request.target != PROBE or not run.context.probe_answer:
        return None
    body = run.context.probe_answer.encode()
    headers = [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(body))),
               ("Connection", "close")]  # fmt: skip
    return render_response(200, "OK", headers) + body
