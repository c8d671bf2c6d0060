"""What is loaded to talk to an engine, in processes of their own: this one has loaded it long ago."""

from __future__ import annotations

import subprocess
import sys

import pytest

BEGIN = """
import gc, ssl, sys
from moat.runtimes.docker_library import load_library, trust_roots

def roots():
    contexts = [each for each in gc.get_objects() if isinstance(each, ssl.SSLContext)]
    return [context.cert_store_stats()["x509_ca"] > 0 for context in contexts]

def verifying():
    return [each for each in gc.get_objects() if isinstance(each, ssl.SSLContext) and each.check_hostname]
"""


def said(script: str, roots: str) -> str:
    """Return what a script prints. roots: a file with authorities, for OpenSSL."""
    env = {"PATH": "/usr/bin:/bin", "SSL_CERT_FILE": roots}
    done = subprocess.run([sys.executable, "-c", BEGIN + script], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def roots() -> str:
    from moat.runs.trust import ROOT_FILES

    return next((str(path) for path in ROOT_FILES if path.is_file()), "")


def test_no_authority_is_read_until_one_is_wanted(roots: str) -> None:
    script = """
load_library()
print(len(roots()) > 0, any(roots()), [each.verify_mode == ssl.CERT_REQUIRED for each in verifying()])
trust_roots()
print(all(roots()))
print("aiodocker" in sys.modules, "set_default_verify_paths" in vars(ssl.SSLContext))
"""
    assert said(script, roots).splitlines() == ["True False [True]", "True", "True False"]


def test_contexts_that_are_made_afterwards_have_theirs(roots: str) -> None:
    assert said("load_library()\nfresh = ssl.create_default_context()\nprint(sum(roots()))", roots) == "1"


def test_what_is_loaded_already_stays_as_it_is(roots: str) -> None:
    assert said("import aiohttp\nload_library()\nprint(all(roots()), 'aiodocker' in sys.modules)", roots) == "True True"
