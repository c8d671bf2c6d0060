#!/bin/sh
# Makes the image that sealed runs use by default, debian:bookworm-slim, on this machine, where it cannot or should not be
# pulled: a minimal Debian 12 with the clients that the tests drive. Does nothing when an image of that name is present.
#   scripts/base-image.sh [--replace] [CACHE]
# --replace  make it although it is present
# CACHE      a tar file: read instead of building when it exists, written otherwise
# Needs root, debootstrap, docker, and the machine's own apt sources; the mirror is the one that they name.
set -eu

image=debian:bookworm-slim
packages=ca-certificates,curl,git,nodejs,openssl,procps,python3,wget # npm: its dependencies do not unpack in a minimal base

fail() {
    echo "error: $1" >&2
    echo "hint: $2" >&2
    exit 1
}

replace=
if [ "${1:-}" = --replace ]; then
    replace=yes
    shift
fi
cache=${1:-}

if [ -z "$replace" ] && docker image inspect "$image" >/dev/null 2>&1; then
    exit 0
fi

load() {
    docker import --change 'CMD ["bash"]' - "$image" >/dev/null
    echo "$image is ready" >&2
}

if [ -n "$cache" ] && [ -s "$cache" ]; then
    load <"$cache"
    exit 0
fi

[ "$(id -u)" = 0 ] || fail "a base image can only be made by root" "run: sudo $0, or: docker pull $image"
command -v debootstrap >/dev/null || fail "debootstrap is not installed" "run: apt-get install debootstrap"
mirror=$(apt-get indextargets --format '$(REPO_URI) $(RELEASE)' 'Created-By: Packages' |
    awk '$2 == "bookworm" { print $1; exit }')
[ -n "$mirror" ] || fail "no apt source of this machine offers bookworm" "run: docker pull $image"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM
echo "making $image with debootstrap" >&2
debootstrap --variant=minbase --include="$packages" bookworm "$work/root" "$mirror" >"$work/log" 2>&1 || {
    tail -n 20 "$work/log" >&2
    fail "debootstrap failed" "look above; does apt-get update work?"
}
# What a slim image goes without, and what would name this machine or its mirror.
rm -rf "$work"/root/usr/share/doc/* "$work"/root/usr/share/man/* "$work"/root/usr/share/locale/* \
    "$work"/root/var/cache/apt/* "$work"/root/var/lib/apt/lists/* "$work"/root/var/log/* "$work"/root/tmp/* \
    "$work"/root/etc/apt/sources.list "$work"/root/etc/resolv.conf "$work"/root/etc/hostname
tar -C "$work/root" --numeric-owner --exclude ./dev --exclude ./proc --exclude ./sys -cf "$work/image.tar" .
load <"$work/image.tar"
if [ -n "$cache" ]; then
    mkdir -p "$(dirname "$cache")"
    mv "$work/image.tar" "$cache.$$"
    mv "$cache.$$" "$cache"
fi
