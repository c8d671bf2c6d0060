from __future__ import annotations

import ssl

import pytest
from moat.api.endpoints import Upstream
from moat.proxy.ca import private_pem
from moat.proxy.refusal import Refusal
from moat.proxy.server.trust import context_for

from core.proxy.server.pairs import CA


def authorities(context: ssl.SSLContext) -> set[str]:
    return {ssl.DER_cert_to_PEM_cert(der) for der in context.get_ca_certs(binary_form=True)}


def test_an_authority_of_its_own_is_the_only_one() -> None:
    context = context_for(Upstream("a.example", ca=CA.certificate_pem), "not even read")

    assert authorities(context) == {CA.certificate_pem}


def test_without_one_the_installations_count() -> None:
    context = context_for(Upstream("a.example", client_certificate=_pem()), CA.certificate_pem)

    assert CA.certificate_pem in authorities(context)


def test_nothing_makes_it_lenient() -> None:
    context = context_for(Upstream("a.example", ca=CA.certificate_pem), "")

    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2


@pytest.mark.parametrize("pem", ["nonsense", "s3cr3t", CA.certificate_pem], ids=["nonsense", "words", "no key"])
def test_what_cannot_be_shown_is_told_without_it(pem: str) -> None:
    with pytest.raises(Refusal, match="certificates of this endpoint") as refusal:
        context_for(Upstream("a.example", client_certificate=pem), "")

    assert pem not in refusal.value.reason


def _pem() -> str:
    return CA.certificate_pem + private_pem(CA.key).decode()
