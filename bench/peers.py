"""The peers: how each is started and reached. All verify the origin, set the credential, keep upstream connections and
write an access log, except haproxy, which logs to a syslog only.

nginx and haproxy are the floor, not peers in function: they hold the host's certificate and speak TLS at once, without
CONNECT, policy or anything to look at. squid and mitmproxy intercept as moat does; they ask for no authentication here.
"""

from __future__ import annotations

import base64
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass

from bench.ground import HOST, OPEN_HOST, SECRET, Ground, free_port
from bench.tools import CERTGEN, MITMDUMP, ROOT, find

TOKEN = "s3cr3t-run-token"  # noqa: S105 - of a run that lives as long as the bench


@dataclass(frozen=True, slots=True)
class Peer:
    """One way to the origin. proxy: `host:port` to CONNECT through, or "-" and an address. process: None for none.

    is_slow: too slow for some of QUICK.
    """

    name: str
    proxy: str
    port: int
    process: subprocess.Popen[bytes] | None = None
    token: str = ""
    open_port: int = 0
    is_slow: bool = False


Start = Callable[[Ground], Peer | None]


def direct(ground: Ground) -> Peer:
    """Nothing in between: what the load generator and the origin can do by themselves."""
    return Peer("direct", f"-{ground.address}", ground.open_port, open_port=ground.open_port)


def nginx(ground: Ground) -> Peer:
    """Two workers, one per core here."""
    port = free_port()
    config = _NGINX.format(listen=port, secret=SECRET, host=HOST, **vars(ground))
    process = ground.run([str(find("nginx")), "-c", ground.write("nginx.conf", config)], port)
    return Peer("nginx", "-", port, process, open_port=port)


def haproxy(ground: Ground) -> Peer | None:
    """Two threads."""
    if not (program := find("haproxy")):
        return None
    port = free_port()
    config = _HAPROXY.format(listen=port, secret=SECRET, host=HOST, **vars(ground))
    process = ground.run([program, "-db", "-f", ground.write("haproxy.cfg", config)], port)
    return Peer("haproxy", "-", port, process, open_port=port)


def squid(ground: Ground) -> Peer | None:
    """One process, with ssl-bump."""
    if not (program := find("squid")) or not CERTGEN.exists():
        return None
    port, home = free_port(), ground.folder / "squid"
    home.mkdir()
    home.chmod(0o777)  # root's squid becomes another user
    subprocess.run([CERTGEN, "-c", "-s", str(home / "certificates"), "-M", "16MB"], check=True, capture_output=True)
    subprocess.run(["chmod", "-R", "a+rwX", str(home)], check=True)
    ground.write("hosts", f"{ground.address} {HOST} {OPEN_HOST}\n")
    config = _SQUID.format(listen=port, home=home, certgen=CERTGEN, secret=SECRET, host=HOST, **vars(ground))
    process = ground.run([program, "-N", "-f", ground.write("squid.conf", config)], port)
    return Peer("squid", f"127.0.0.1:{port}", ground.port, process, open_port=ground.open_port)


def mitmproxy(ground: Ground) -> Peer | None:
    """mitmdump with a script that sets the header and streams bodies."""
    if not MITMDUMP.exists():
        return None
    port, home = free_port(), ground.folder / "mitmproxy"
    home.mkdir()
    (home / "mitmproxy-ca.pem").write_text((ground.folder / "ca-with-key.pem").read_text())
    script = ground.write("inject.py", _MITMPROXY.format(secret=SECRET, host=HOST, address=ground.address))
    options = [f"confdir={home}", f"ssl_verify_upstream_trusted_ca={ground.folder}/ca.pem", "http2=false",
               "stream_large_bodies=1m", "connection_strategy=lazy", "flow_detail=0",
               "termlog_verbosity=error"]  # fmt: skip
    command = [str(MITMDUMP), "-p", str(port), "--listen-host", "127.0.0.1", "-s", script]
    process = ground.run(command + [word for option in options for word in ("--set", option)], port)
    return Peer("mitmproxy", f"127.0.0.1:{port}", ground.port, process, open_port=ground.open_port, is_slow=True)


def moat(ground: Ground, *, name: str = "moat", runs: int = 1, rules: int = 1, is_recorded: bool = True) -> Peer:
    """The worker as the daemon runs it, with a token, a strict policy, a rule that injects, and the trace written.

    is_recorded: whether there are trace and audit.
    """
    port = free_port()
    command = [sys.executable, "-m", "bench.driver", "--folder", str(ground.folder), "--listen", str(port),
               "--address", ground.address, "--origin", str(ground.port), "--open-origin", str(ground.open_port),
               "--runs", str(runs), "--rules", str(rules),
               *([] if is_recorded else ["--unrecorded"])]  # fmt: skip
    process = ground.run(["env", f"PYTHONPATH={ROOT}:{ROOT}/moat-core/src", *command], port)
    token = base64.b64encode(f"moat:{TOKEN}".encode()).decode()
    return Peer(name, f"127.0.0.1:{port}", ground.port, process, token, ground.open_port)


ALL: tuple[Start, ...] = (direct, nginx, haproxy, squid, mitmproxy, moat)

_NGINX = """\
worker_processes 2; daemon off; pid {folder}/nginx.pid; error_log {folder}/nginx.log;
worker_rlimit_nofile 20000;
events {{ worker_connections 9000; }}
http {{
  access_log {folder}/nginx-access.log combined buffer=64k flush=1s; tcp_nodelay on;
  keepalive_requests 1000000000; keepalive_timeout 1h; client_max_body_size 0;
  client_body_temp_path {folder}/nginx-body; proxy_temp_path {folder}/nginx-proxy;
  fastcgi_temp_path {folder}/t; uwsgi_temp_path {folder}/t; scgi_temp_path {folder}/t;
  upstream origin {{ server {address}:{port}; keepalive 2000; keepalive_requests 1000000000; keepalive_timeout 1h; }}
  server {{
    listen 127.0.0.1:{listen} ssl backlog=4096;
    ssl_protocols TLSv1.2 TLSv1.3; ssl_certificate {folder}/{host}.pem; ssl_certificate_key {folder}/{host}.pem;
    location / {{
      proxy_pass https://origin; proxy_http_version 1.1; proxy_read_timeout 1h;
      proxy_ssl_server_name on; proxy_ssl_name {host}; proxy_ssl_verify on; proxy_ssl_protocols TLSv1.2 TLSv1.3;
      proxy_ssl_trusted_certificate {folder}/ca.pem;
      proxy_set_header Host {host}; proxy_set_header Connection ""; proxy_set_header Authorization "{secret}";
      proxy_request_buffering off; proxy_max_temp_file_size 0; proxy_buffers 16 16k;
    }}
    location /events {{
      proxy_pass https://origin; proxy_http_version 1.1; proxy_read_timeout 1h;
      proxy_ssl_server_name on; proxy_ssl_name {host}; proxy_ssl_verify on; proxy_ssl_protocols TLSv1.2 TLSv1.3;
      proxy_ssl_trusted_certificate {folder}/ca.pem;
      proxy_set_header Host {host}; proxy_set_header Connection ""; proxy_set_header Authorization "{secret}";
      proxy_buffering off;
    }}
  }}
}}
"""

_HAPROXY = """\
global
  nbthread 2
  maxconn 8000
  ca-base {folder}
defaults
  mode http
  timeout connect 5s
  timeout client 1h
  timeout server 1h
  option http-no-delay
frontend clients
  bind 127.0.0.1:{listen} ssl crt {folder}/{host}.pem alpn http/1.1 backlog 4096
  http-request set-header Authorization "{secret}"
  default_backend origin
backend origin
  http-reuse always
  server origin {address}:{port} ssl verify required ca-file {folder}/ca.pem sni str({host}) verifyhost {host} pool-max-conn 2000
"""

_SQUID = """\
http_port 127.0.0.1:{listen} ssl-bump cert={folder}/ca-with-key.pem generate-host-certificates=on \
dynamic_cert_mem_cache_size=16MB
sslcrtd_program {certgen} -s {home}/certificates -M 16MB
sslcrtd_children 4
ssl_bump bump all
tls_outgoing_options cafile={folder}/ca.pem
hosts_file {folder}/hosts
http_access allow all
cache deny all
access_log stdio:{home}/access.log
buffered_logs on
cache_log {home}/cache.log
pid_filename {home}/squid.pid
coredump_dir {home}
request_header_access Authorization deny all
request_header_add Authorization "{secret}" all
read_ahead_gap 256 KB
max_filedescriptors 20000
shutdown_lifetime 0 seconds
pipeline_prefetch 0
"""

_MITMPROXY = """\
def http_connect(flow):
    flow.request.host = "{address}"  # the names of the bench are in no DNS
def requestheaders(flow):
    if flow.client_conn.sni == "{host}":
        flow.request.headers["Authorization"] = "{secret}"
    flow.request.stream = flow.request.path.startswith("/upload")
def responseheaders(flow):
    flow.response.stream = flow.request.path.startswith("/events")
"""
