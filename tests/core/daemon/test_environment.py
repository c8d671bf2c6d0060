from __future__ import annotations

from moat.daemon.environment import for_daemon, reduced


def test_only_what_is_on_the_list_is_kept() -> None:
    kept = {
        "HOME": "/h",
        "PATH": "/bin",
        "LANG": "C",
        "XDG_RUNTIME_DIR": "/r",
        "MOAT_HOME": "/m",
        "SSL_CERT_FILE": "/c",
        "DOCKER_HOST": "unix:///d.sock",
        "CONTAINER_HOST": "unix:///p.sock",
    }
    dropped = {
        "GITHUB_TOKEN": "t",
        "MOAT_FOO_TOKEN": "t",
        "MOAT_RUNTIME": "r",
        "PYTHONPATH": "/p",
        "LD_PRELOAD": "x",
        "https_proxy": "p",
        "XMOAT_": "",
        "home": "",
    }

    assert reduced({**kept, **dropped}) == kept


def test_one_command_s_profile_is_not_the_daemon_s() -> None:
    assert reduced({"MOAT_PROFILE": "work", "MOAT_HOME": "/h"}) == {"MOAT_HOME": "/h"}


def test_what_opentelemetry_is_told_is_for_the_daemon_alone() -> None:
    env = {"HOME": "/h", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318", "GITHUB_TOKEN": "t"}

    assert for_daemon(env) == {"HOME": "/h", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}
    assert reduced(env) == {"HOME": "/h"}
