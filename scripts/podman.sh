#!/bin/sh
# Starts podman's service for the tests, where none answers, and gives it the base image that docker has. Prints the
# number of the process that it started, if any; whoever calls ends it.
#   scripts/podman.sh
# Needs root, podman with its init (catatonit), docker with the image (scripts/base-image.sh).
set -eu

socket=/run/podman/podman.sock
image=debian:bookworm-slim
work=$(cd "$(dirname "$0")/.." && pwd)/.build/podman

answers() {
    [ -S "$socket" ] && curl -fs -o /dev/null --max-time 5 --unix-socket "$socket" http://podman/_ping
}

mkdir -p "$work"
# Where tests run, root may not raise limits, and control groups are of a kind that crun refuses. A test's own service,
# of another user, reads it too.
cat >"$work/containers.conf" <<CONF
[containers]
default_ulimits = ["nofile=$(ulimit -Hn):$(ulimit -Hn)", "nproc=4096:4096"]
[engine]
runtime = "runc"
CONF
if ! answers; then
    mkdir -p "$(dirname "$socket")"
    CONTAINERS_CONF="$work/containers.conf" setsid podman system service --time 0 "unix://$socket" \
        >"$work/service.log" 2>&1 </dev/null &
    pid=$!
    for _ in $(seq 60); do
        answers && break
        sleep 0.5
    done
    answers || { tail -n 20 "$work/service.log" >&2; kill "$pid"; exit 1; }
    echo "$pid"
fi
podman --url "unix://$socket" image exists "$image" ||
    docker save "$image" | podman --url "unix://$socket" load >/dev/null
