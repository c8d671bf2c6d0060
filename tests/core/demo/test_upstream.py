from __future__ import annotations

import http.client
import ssl
import threading

from moat.demo.upstream import Api, running_api


def asked(api: Api, authorization: str = "") -> int:
    context = ssl.create_default_context(cadata=api.certificate)
    context.check_hostname = False
    connection = http.client.HTTPSConnection("127.0.0.1", api.port, context=context, timeout=5)
    try:
        connection.request("GET", "/x", headers={"Authorization": authorization} if authorization else {})
        return connection.getresponse().status
    finally:
        connection.close()


def test_only_the_key_opens_it_and_each_request_is_remembered() -> None:
    with running_api("api.acme.example", "s3cr3t") as api:
        answers = [asked(api), asked(api, "Bearer moat-placeholder"), asked(api, "Bearer s3cr3t")]

    assert answers == [401, 401, 200]
    assert api.seen == [("/x", False), ("/x", False), ("/x", True)]
    assert "s3cr3t" not in repr(api)


def test_it_ends_with_the_demo() -> None:
    before = threading.active_count()

    with running_api("api.acme.example", "s3cr3t"):
        pass

    assert threading.active_count() == before
