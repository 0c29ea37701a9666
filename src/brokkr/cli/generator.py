"""``brokkr generator``: tenants, and how much each may submit."""

from typing import Annotated

import typer

from brokkr.cli.output import Format, Output, render_columns, render_time, show
from brokkr.cli.run import run
from brokkr.cli.settings import ConfigFile, Key, Url, connect
from brokkr.client.submission import body_of
from brokkr.wire.tenants import (
    CreatedGenerator,
    CreateGenerator,
    GeneratorBody,
    GeneratorPage,
    LimitGenerator,
)
from brokkr.work.errors import InvalidInput

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)

Name = Annotated[str, typer.Argument(metavar="GENERATOR", help="Its name or id.")]


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="A name that no other generator has.")],
    max_pending: Annotated[
        int | None, typer.Option(help="How many of its Works may be pending at once.")
    ] = None,
    max_per_minute: Annotated[
        int | None, typer.Option(help="How many Works it may submit in a minute.")
    ] = None,
    output: Output = Format.TABLE,
    url: Url = None,
    key: Key = None,
    config: ConfigFile = None,
) -> None:
    """Create a generator and print its key, which is shown only now."""

    async def work() -> CreatedGenerator:
        body = body_of(
            CreateGenerator,
            name=name,
            max_pending=max_pending,
            max_submissions_per_minute=max_per_minute,
        )
        async with connect(url, key, config) as client:
            return await client.create_generator(body)

    _show_key(run(work()), output)


@app.command(name="list")
def list_(
    output: Output = Format.TABLE,
    url: Url = None,
    key: Key = None,
    config: ConfigFile = None,
) -> None:
    """List all generators by name, with their limits and what they have pending."""

    async def work() -> GeneratorPage:
        async with connect(url, key, config) as client:
            page = await client.list_generators()
            items = page.items
            while page.next_cursor:
                page = await client.list_generators(cursor=page.next_cursor)
                items = items + page.items
            return GeneratorPage(items=items)

    page = run(work())
    show(page, output, table=lambda: _table(page.items))


@app.command()
def limit(
    generator: Name,
    max_pending: Annotated[
        str | None,
        typer.Option(metavar="N|none", help="How many of its Works may be pending at once."),
    ] = None,
    max_per_minute: Annotated[
        str | None,
        typer.Option(metavar="N|none", help="How many Works it may submit in a minute."),
    ] = None,
    output: Output = Format.TABLE,
    url: Url = None,
    key: Key = None,
    config: ConfigFile = None,
) -> None:
    """Set limits, or remove them with `none`; they hold from the next submission on."""

    async def work() -> GeneratorBody:
        given = {"max_pending": max_pending, "max_submissions_per_minute": max_per_minute}
        limits = {k: _limit(v, of=k) for k, v in given.items() if v is not None}
        if not limits:
            raise InvalidInput("limit", "give --max-pending, --max-per-minute, or both")
        body = body_of(LimitGenerator, **limits)
        async with connect(url, key, config) as client:
            return await client.limit_generator(generator, body)

    changed = run(work())
    show(changed, output, table=lambda: _table([changed]))


@app.command()
def rotate_key(
    generator: Name,
    output: Output = Format.TABLE,
    url: Url = None,
    key: Key = None,
    config: ConfigFile = None,
) -> None:
    """Make a new key, print it, and revoke the old one."""

    async def work() -> CreatedGenerator:
        async with connect(url, key, config) as client:
            return await client.rotate_generator_key(generator)

    _show_key(run(work()), output)


@app.command()
def delete(
    generator: Name,
    url: Url = None,
    key: Key = None,
    config: ConfigFile = None,
) -> None:
    """Delete a generator: its key is revoked, its name is free, and its Work goes on."""

    async def work() -> None:
        async with connect(url, key, config) as client:
            await client.delete_generator(generator)

    run(work())


def _show_key(generator: CreatedGenerator, output: Format) -> None:
    show(
        generator,
        output,
        table=lambda: (
            f"generator {generator.name} is {generator.id}\n"
            f"its key, shown only now, for --key, BROKKR_KEY or [client] key:\n{generator.key}"
        ),
    )


def _table(generators: list[GeneratorBody]) -> str:
    head = ("NAME", "ID", "PENDING", "MAX PENDING", "MAX PER MINUTE", "CREATED")
    return render_columns(
        head,
        [
            (
                each.name,
                str(each.id),
                str(each.pending),
                _words(each.max_pending),
                _words(each.max_submissions_per_minute),
                render_time(each.created_at),
            )
            for each in generators
        ],
    )


def _words(limit: int | None) -> str:
    return "none" if limit is None else str(limit)


def _limit(text: str, *, of: str) -> int | None:
    """Read a limit as it is given; `none` is no limit."""
    if text == "none":
        return None
    try:
        return int(text)
    except ValueError:
        raise InvalidInput(of, f"must be a whole number or none, and is {text!r}") from None
