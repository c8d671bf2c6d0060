"""The moat.yaml that `moat init` writes: every key with an example, commented out, so that it says nothing yet."""

from __future__ import annotations

TEMPLATE = """\
# moat.yaml: what runs in this folder are like. `moat run` without a command runs `command`.
# An option of the command line wins over this file, this file over $MOAT_HOME/config.yaml.
# What reaches beyond the sandbox (marked "asks") is granted only after you have seen it and said yes.
# Everything about it: docs/moat-yaml.md; for editors: moat init --schema

# name: my-project                 # of the run, as --name

# command: [make, test]            # a list: program and arguments; for a shell: [sh, -c, "make && make test"]

# agent: claude                    # asks: what `moat run` starts where there is no command

# agents:                          # how agents work here, by name
#   claude:
#     model: opus
#     yolo: false                  # have it ask before it acts; it need not, since it is sealed

# env:                             # variables inside; no secrets, a run can read this file
#   CI: "1"

# grants: [github]                 # asks: credentials to spend, as --grant

# secrets:                         # asks: variables whose values are fetched on this machine at start; the run can
#   DATABASE_URL: env://DATABASE_URL            # read them, so prefer grants
#   LICENSE: file://~/.config/tool/license
#   TOKEN: cmd://pass show token
#   KEY: op://vault/item/field                  # by the 1Password CLI
#   PASSWORD: ssm:///prod/password?region=eu-west-3     # of AWS Systems Manager, by moat-provider-aws

# workspace:
#   mode: copy                     # a run works on a copy; see moat diff and moat apply
#   exclude: [.env, node_modules, secrets/**]   # what of it a run does not see, as .gitignore writes it

# mounts:                          # asks, unless the source lies in this folder
#   - source: ./fixtures
#     target: /fixtures
#     read_only: true
#     exclude: ["*.key"]

# volumes:                         # folders that runs of this workspace keep from one to the next
#   cache: /home/moat/.cache

# network:
#   policy: strict                 # or permissive, which is the default
#   allow: [pypi.org, "*.example.com"]          # asks where you yourself say strict
#   rules:                         # asks for what lets more out than you yourself do
#     - allow GET api.github.com/repos/**
#   host_ports: [5432]             # asks: ports of this machine, inside at host.moat.internal:5432

# ports:                           # asks: reached at http://web.NAME.localhost:8080/ on this machine
#   web: 3000                      # and at a free port of 127.0.0.1, or with {port: 3000, publish: 13000} at that one

# mcp:                             # asks: MCP servers, inside at http://127.0.0.1:19080/mcp/linear
#   - name: linear
#     url: https://mcp.linear.app/mcp
#     grant: linear                # whose credential it is sent
#     tools: [list_issues]         # the only ones that may be called

# services:                        # asks: stand beside the command, in its network; for docker, podman
#   db: postgres@16                # DATABASE_URL and PG… inside; also mysql, mariadb, redis
#   search:
#     image: opensearchproject/opensearch:2
#     port: 9200
#     env: {discovery.type: single-node}
#     ready: [curl, -fs, "http://127.0.0.1:9200/"]

# base_image: debian:bookworm-slim # asks, unless it is your own; for docker

# dependencies:                    # asks: what the image must have; for docker, built on first use
#   - node@22
#   - apt:ripgrep
#   - pip:ruff==0.6

# hooks:
#   post_build: useradd app        # asks: shell, run once, as root, in the image that is built
#   pre_run: [npm ci]              # shell, run inside before the command; the first that fails ends the run

# runtime: docker                  # asks for process, which isolates nothing, and for another one than yours

# interactive: true                # a terminal, also with -d; false: never one; auto: as moat itself has

# snapshots:                       # of this folder's files: moat snapshot list
#   before: true
#   every: 10m                     # while a run works, where something has changed

# container:                       # docker holds a run to all of these, bubblewrap to ulimits only
#   memory: 2g
#   cpus: 1.5
#   pids: 512                      # asks above 4096
#   ulimits:                       # asks
#     nofile: {soft: 1024, hard: 4096}

# trace:
#   bodies: true                   # moat trace has headers and beginnings of bodies too, without secrets
"""
