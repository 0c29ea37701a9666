"""``brokkr key``: keys of admins and viewers, and a list of everybody's."""

from enum import StrEnum
from typing import Annotated

import typer

from brokkr.cli.output import Format, Output, render_columns, render_time, show
from brokkr.cli.run import run
from brokkr.cli.settings import ConfigFile, Key, Url, connect
from brokkr.client.submission import body_of
from brokkr.wire.tenants import CreatedKey, CreateKey, KeyBody, KeyPage

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)


class KeyRole(StrEnum):
    """Whose keys are made here; agents and generators get theirs when they are made."""

    ADMIN = "admin"
    VIEWER = "viewer"


@app.command()
def create(
    role: Annotated[KeyRole, typer.Argument(help="An admin changes things, a viewer reads them.")],
    name: Annotated[str, typer.Argument(help="What the key is for, or who gets it.")],
    output: Output = Format.TABLE,
    url: Url = None,
    key: Key = None,
    config: ConfigFile = None,
) -> None:
    """Make a key and print it; it is shown only now."""

    async def work() -> CreatedKey:
        body = body_of(CreateKey, role=role.value, name=name)
        async with connect(url, key, config) as client:
            return await client.create_key(body)

    created = run(work())
    show(
        created,
        output,
        table=lambda: (
            f"{created.role} key {created.short_id} is for {created.name}\n"
            f"the key, shown only now, for --key, BROKKR_KEY or [client] key:\n{created.key}"
        ),
    )


@app.command(name="list")
def list_(
    revoked: Annotated[
        bool, typer.Option("--revoked", help="Those that are revoked, too.")
    ] = False,
    output: Output = Format.TABLE,
    url: Url = None,
    key: Key = None,
    config: ConfigFile = None,
) -> None:
    """List keys, newest first, with when each was last used."""

    async def work() -> KeyPage:
        async with connect(url, key, config) as client:
            page = await client.list_keys()
            items = page.items
            while page.next_cursor:
                page = await client.list_keys(cursor=page.next_cursor)
                items = items + page.items
            return KeyPage(items=[each for each in items if revoked or each.revoked_at is None])

    page = run(work())
    show(page, output, table=lambda: _table(page.items))


@app.command()
def revoke(
    short_id: Annotated[str, typer.Argument(metavar="KEY", help="Its short id, from the list.")],
    url: Url = None,
    key: Key = None,
    config: ConfigFile = None,
) -> None:
    """Revoke a key; within seconds it opens nothing any more."""

    async def work() -> None:
        async with connect(url, key, config) as client:
            await client.revoke_key(short_id)

    run(work())


def _table(keys: list[KeyBody]) -> str:
    head = ("KEY", "ROLE", "NAME", "CREATED", "LAST USED", "REVOKED")
    return render_columns(
        head,
        [
            (
                each.short_id,
                each.role,
                each.name or "-",
                render_time(each.created_at),
                render_time(each.last_used_at) or "never",
                render_time(each.revoked_at) or "-",
            )
            for each in keys
        ],
    )
