"""`moat grant NAME`, and `list`, `show`, `revoke` of what is stored.

A grant's options are the provider's own, so its command is made when it is asked for. A stored secret is never read
here: descriptions come from the readable part of the store's files.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Literal

import click

from moat.api.errors import GrantFailed, UsageError
from moat.cli import output
from moat.cli.known import complete_grants, complete_profiles
from moat.ids import checked_name, checked_profile
from moat.paths import find_home

if TYPE_CHECKING:
    from moat.api.credentials import Credential, CredentialProvider, Host
    from moat.store.credentials import CredentialStore, GrantInfo

STDIN_LIMIT_BYTES = 64 * 1024
_PROFILE = "moat.grant.profile"


class Grants(click.Group):
    """`list`, `show` and `revoke`, and one command for each installed provider."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return our own three words first, then the providers."""
        return [*super().list_commands(ctx), *(provider.name for provider in _providers())]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return one of our own, or a command made of the provider's declaration."""
        from moat.plugins.manager import Plugins

        if own := super().get_command(ctx, cmd_name):
            return own
        return _command_of(Plugins.load().credential_provider(checked_name(cmd_name, "grant")))


@click.group(cls=Grants)
@click.option(
    "--profile",
    envvar="MOAT_PROFILE",
    default="",
    metavar="P",
    shell_complete=complete_profiles,
    help="Whose credentials; see moat run.",
)
@click.pass_context
def grant(ctx: click.Context, profile: str) -> None:
    """Store a credential, and list, show or revoke those stored.

    `moat grant NAME` obtains the credential, checks it against its service and keeps it encrypted.
    """
    ctx.meta[_PROFILE] = checked_profile(profile)


@grant.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_grants(as_json: bool) -> None:
    """List what is stored."""
    infos = _store().describe_all()
    if as_json:
        output.show_json([asdict(info) for info in infos])
    elif not infos:
        output.say("nothing is granted yet; run: moat grant --help")
    else:
        rows = [(i.name, i.source or f"unreadable: {i.problem}", i.granted_at, i.expires_at or "never") for i in infos]
        output.show_table(("PROVIDER", "SOURCE", "GRANTED", "EXPIRES"), rows)


@grant.command("show")
@click.argument("name", shell_complete=complete_grants)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def show_grant(name: str, as_json: bool) -> None:
    """Show what is known about one grant; never its secret."""
    info = _store().describe(name)
    if as_json:
        output.show_json(asdict(info))
        return
    facts = {"provider": info.name, "source": info.source, "granted at": info.granted_at}
    facts |= {"expires": info.expires_at or "never", **info.metadata}
    for key, value in facts.items():
        output.show(f"{key + ':':<20} {value}")


@grant.command("revoke")
@click.argument("name", shell_complete=complete_grants)
def revoke_grant(name: str) -> None:
    """Forget a stored credential. The service it is for is not told."""
    store = _store()
    info = _told_apart(store, name)
    store.remove(name)
    _noted("revoked", name)
    output.show(f"{name} revoked; removed the credential {info}from this machine (not from its service)")


def _told_apart(store: CredentialStore, name: str) -> str:
    """Return which credential it is, in words; a spoilt one can be revoked as well."""
    found: list[GrantInfo] = [info for info in store.describe_all() if info.name == name]
    if not found or found[0].problem:
        return ""
    return f"from {found[0].source} of {found[0].granted_at} "


def _command_of(provider: CredentialProvider) -> click.Command:
    """Return `moat grant <provider>`: the common options and the provider's own."""

    def callback(with_token: bool, no_validate: bool, **given: str | None) -> None:
        options = {name.replace("_", "-"): value for name, value in given.items() if value is not None}
        _grant(provider, with_token=with_token, validate=not no_validate, options=options)

    own: list[click.Parameter] = [
        click.Option([f"--{option.name}"], help=option.help, metavar="TEXT") for option in provider.grant_options
    ]
    common: list[click.Parameter] = [
        click.Option(["--with-token"], is_flag=True, help="Read the secret from standard input."),
        click.Option(["--no-validate"], is_flag=True, help="Store it without asking its service."),
    ]
    return click.Command(provider.name, callback=callback, params=own + common, help=f"{provider.summary}.")


def grant_now(provider: CredentialProvider, profile: str, ctx: click.Context) -> None:
    """Obtain a credential in the middle of another command, as `moat grant` would."""
    ctx.meta[_PROFILE] = profile
    _grant(provider, with_token=False, validate=True, options={})


def _grant(provider: CredentialProvider, *, with_token: bool, validate: bool, options: dict[str, str]) -> None:
    from moat.config.settings import load_settings
    from moat.host import RealHost

    missing = [option.name for option in provider.grant_options if option.required and option.name not in options]
    if missing and not with_token:
        raise UsageError(f"--{missing[0]} is missing", hint=f"run: moat grant {provider.name} --help")
    secret = _read_secret(provider.name) if with_token else None
    host = RealHost(
        env=dict(os.environ),
        upstream=load_settings(find_home()).upstream,
        say=output.say,
        grant=provider.name,
        variables=tuple(getattr(provider, "variables", ())),
        validate=validate,
        options=options,
    )
    credential = asyncio.run(_obtained(provider, secret, host))
    if credential.provider != provider.name:
        raise GrantFailed(f"the plugin made a credential for {credential.provider!r}; nothing was saved")
    spent_on = _spent_on(provider, credential)
    _store().save(credential)
    _noted("granted", provider.name, source=credential.source)
    output.show(f"{provider.name} granted from {credential.source}; spent on {spent_on}")


async def _obtained(provider: CredentialProvider, secret: str | None, host: Host) -> Credential:
    return await (provider.grant(host) if secret is None else provider.accept(secret, host))


def _spent_on(provider: CredentialProvider, credential: Credential) -> str:
    from moat.api.endpoints import EndpointProvider

    hosts = sorted({rule.match.authority for rule in provider.rules(credential)})
    if hosts:
        return ", ".join(hosts)
    has_endpoint = isinstance(provider, EndpointProvider) and provider.endpoints(credential)
    return "its endpoint inside of runs" if has_endpoint else "nothing yet"


def _read_secret(name: str) -> str:
    """Return what standard input holds, up to a limit: a token that was piped in, never one that was typed in clear."""
    if sys.stdin.isatty():
        raise UsageError("--with-token reads a file or a pipe", hint=f"run: moat grant {name} --with-token < FILE")
    data = sys.stdin.buffer.read(STDIN_LIMIT_BYTES + 1)
    if len(data) > STDIN_LIMIT_BYTES:
        raise GrantFailed("standard input is too long to be a token; nothing was saved")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise GrantFailed("standard input is not text; nothing was saved") from None


def _providers() -> Sequence[CredentialProvider]:
    from moat.plugins.manager import Plugins

    return Plugins.load().credential_providers()


def _noted(kind: Literal["granted", "revoked"], name: str, **facts: str) -> None:
    """Have the audit hold it."""
    from moat.daemon.audit_notes import tell

    profile: str = click.get_current_context().meta.get(_PROFILE, "")
    if problem := tell(find_home(), kind, {"grant": name, "profile": profile, **facts}):
        output.warn(f"the audit does not have this: {problem}")


def _store() -> CredentialStore:
    from moat.store.credentials import CredentialStore

    profile: str = click.get_current_context().meta.get(_PROFILE, "")
    return CredentialStore(find_home(), warn=output.warn, profile=profile)
