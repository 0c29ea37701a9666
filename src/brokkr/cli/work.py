"""``brokkr work``: for those who have something to be done."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import typer
import yaml

from brokkr.cli.arguments import parse_pairs, read_template
from brokkr.cli.facts import (
    list_facts,
    list_result_facts,
    render_events,
    render_explanation,
    render_receipt,
    render_table,
)
from brokkr.cli.follow import follow as follow_work
from brokkr.cli.follow import render_event
from brokkr.cli.output import Format, Output, plain, render_facts, render_time, say, show
from brokkr.cli.run import run
from brokkr.cli.settings import ConfigFile, Key, Url, connect
from brokkr.client import BrokerClient
from brokkr.client.asynchronous import watch
from brokkr.client.submission import body_of
from brokkr.wire.bodies import (
    ReleaseWork,
    RequeueWork,
    SubmitWork,
    WorkBody,
    WorkPage,
    WorkState,
)
from brokkr.wire.events import EventPage, WorkEvent
from brokkr.wire.explain import Explanation
from brokkr.work.errors import InvalidInput
from brokkr.work.trace import TraceContext

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)

WorkId = Annotated[UUID, typer.Argument(metavar="ID", help="The Work's id.")]
Follow = Annotated[
    bool, typer.Option("--follow", "-f", help="Tell what happens until the Work is finished.")
]
Reason = Annotated[str, typer.Option(help="Why, for its history.")]


@app.command()
def submit(
    file: Annotated[Path, typer.Argument(help="What to run, as YAML or JSON; - is stdin.")],
    target: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="A label that the agent must have. Repeatable."),
    ] = None,
    agent: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="The agent, or one of them. Repeatable."),
    ] = None,
    annotation: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="An annotation that it must have. Repeatable."),
    ] = None,
    work_type: Annotated[str, typer.Option("--type", help="The work type.")] = "build",
    label: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="The Work's own, to find it by. Repeatable."),
    ] = None,
    max_retries: Annotated[int | None, typer.Option(help="How many failures to forgive.")] = None,
    max_handoffs: Annotated[
        int | None,
        typer.Option(help="How often another agent may try after a retryable failure."),
    ] = None,
    priority: Annotated[
        int | None, typer.Option(help="Higher goes first; -100 to 100, default 0.")
    ] = None,
    not_before: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Not to be claimed earlier, as 2026-01-31T12:00:00Z."),
    ] = None,
    start_within: Annotated[
        int | None,
        typer.Option(metavar="SECONDS", help="If nobody claims it for so long, it expires."),
    ] = None,
    claim_timeout: Annotated[
        int | None,
        typer.Option(metavar="SECONDS", help="How long a silent agent keeps the Work."),
    ] = None,
    idempotency_key: Annotated[
        str | None,
        typer.Option(metavar="KEY", help="With the same key, the same Work is returned again."),
    ] = None,
    traceparent: Annotated[
        str | None,
        typer.Option(envvar="TRACEPARENT", help="The trace that it is part of (W3C)."),
    ] = None,
    follow: Follow = False,
    output: Output = Format.TABLE,
    url: Url = None,
    key: Key = None,
    config: ConfigFile = None,
) -> None:
    """
    Submit Work for one of the agents that its target selects.

    An agent must match all of --target, --agent and --annotation that are given.

    With --follow, the exit code is 0 if the Work succeeds and 1 if it does not.  With
    --follow --output json, only the finished Work goes to standard output.  Ctrl-C ends
    the following (exit code 130), not the Work.
    """

    async def work() -> WorkBody:
        body = _submission(
            template=read_template(file),
            target={
                "agents": agent or [],
                "match_labels": parse_pairs(target or [], option="--target"),
                "match_annotations": parse_pairs(annotation or [], option="--annotation"),
            },
            work_type=work_type,
            labels=parse_pairs(label or [], option="--label") or None,
            max_retries=max_retries,
            max_handoffs=max_handoffs,
            priority=priority,
            not_before=not_before,
            start_within_seconds=start_within,
            claim_timeout_seconds=claim_timeout,
            idempotency_key=idempotency_key,
        )
        async with connect(url, key, config) as client:
            submitted = await client.submit_work(body, trace=TraceContext.parse(traceparent))
            if not follow:
                return submitted
            tell = _teller(output)
            tell(f"work {submitted.id}")
            return await follow_work(client, submitted, say=tell)

    submitted = run(work())
    if follow:
        _end(submitted, output)
    show(submitted, output, table=lambda: render_receipt(submitted))


@app.command(name="list")
def list_(
    work_type: Annotated[str | None, typer.Option("--type", help="Only of this type.")] = None,
    status: Annotated[
        WorkState | None, typer.Option(case_sensitive=False, help="Only in this state.")
    ] = None,
    outcome: Annotated[
        str | None,
        typer.Option(
            help="Only what ended so: succeeded, failed, cancelled, expired, quarantined."
        ),
    ] = None,
    agent: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only what this agent has or had.")
    ] = None,
    label: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="Only with this label of its own. Repeatable."),
    ] = None,
    generator: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only what this generator submitted.")
    ] = None,
    since: Annotated[
        str | None, typer.Option(metavar="TIME", help="Submitted since, as 2026-01-31T12:00:00Z.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=500, help="How many at most.")] = 50,
    cursor: Annotated[
        str | None, typer.Option(help="Where the last page ended, as it said.")
    ] = None,
    output: Output = Format.TABLE,
    url: Url = None,
    key: Key = None,
    config: ConfigFile = None,
) -> None:
    """List Work, queued and finished, the newest first; all filters that are given must hold."""

    async def work() -> WorkPage:
        async with connect(url, key, config) as client:
            agent_id = None if agent is None else str((await client.get_agent(agent)).id)
            return await client.list_work(
                type=work_type,
                status=status,
                outcome=outcome,
                agent_id=agent_id,
                label=label,
                generator=generator,
                since=since,
                limit=limit,
                cursor=cursor,
            )

    page = run(work())
    show(page, output, table=lambda: render_table(page))
    if output is Format.TABLE and page.next_cursor:
        say(f"there is more: --cursor {page.next_cursor}")


@app.command()
def get(
    work_id: WorkId,
    follow: Follow = False,
    output: Output = Format.TABLE,
    url: Url = None,
    key: Key = None,
    config: ConfigFile = None,
) -> None:
    """Show one Work, wherever it is; with --follow, exit as `submit --follow` does."""

    async def work() -> WorkBody:
        async with connect(url, key, config) as client:
            found = await client.get_work(work_id)
            return await follow_work(client, found, say=_teller(output)) if follow else found

    found = run(work())
    if follow:
        _end(found, output)
    show(found, output, table=lambda: render_facts(list_facts(found)))


@app.command()
def events(
    work_id: WorkId,
    follow: Follow = False,
    output: Output = Format.TABLE,
    url: Url = None,
    key: Key = None,
    config: ConfigFile = None,
) -> None:
    """
    Show all that happened to a Work, and who did it.

    With --follow, each event is printed when it happens, until the Work is finished; as
    JSON that is one object in a line.
    """

    async def listed() -> EventPage:
        async with connect(url, key, config) as client:
            return EventPage(items=[event async for event in _all_events(client, work_id)])

    async def followed() -> None:
        async with (
            connect(url, key, config) as client,
            aclosing(watch(client, work_id, away=lambda error: say(str(error)))) as stream,
        ):
            async for event in stream:
                _print_event(event, output)

    if follow:
        run(followed())
    else:
        page = run(listed())
        show(page, output, table=lambda: render_events(page.items))


@app.command()
def explain(
    work_id: WorkId,
    agent: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only this agent, by name or id.")
    ] = None,
    output: Output = Format.TABLE,
    url: Url = None,
    key: Key = None,
    config: ConfigFile = None,
) -> None:
    """Say why a Work is where it is: while it waits, what keeps each agent from claiming it."""

    async def work() -> Explanation:
        async with connect(url, key, config) as client:
            return await client.explain_work(work_id, agent=agent)

    found = run(work())
    show(found, output, table=lambda: render_explanation(found))


@app.command()
def cancel(
    work_id: WorkId,
    output: Output = Format.TABLE,
    url: Url = None,
    key: Key = None,
    config: ConfigFile = None,
) -> None:
    """Cancel a Work; one that is being executed is stopped by its agent a little later."""

    async def work() -> WorkBody:
        async with connect(url, key, config) as client:
            return await client.cancel_work(work_id)

    cancelled = run(work())
    over = cancelled.status.is_finished
    text = "cancelled" if over else f"cancel requested; {cancelled.agent} will stop it"
    show(cancelled, output, table=lambda: f"work {work_id}: {text}")


@app.command()
def release(
    work_id: WorkId,
    reason: Reason = "",
    delay: Annotated[
        float, typer.Option(metavar="SECONDS", help="Until it may be claimed again.")
    ] = 0,
    output: Output = Format.TABLE,
    url: Url = None,
    key: Key = None,
    config: ConfigFile = None,
) -> None:
    """Take a Work from the agent that holds it, and let any that matches claim it."""

    async def work() -> WorkBody:
        body = body_of(ReleaseWork, reason=reason, delay_seconds=delay)
        async with connect(url, key, config) as client:
            return await client.release_work(work_id, body)

    released = run(work())
    show(released, output, table=lambda: f"work {work_id}: {_queued(released)}")


@app.command()
def requeue(
    work_id: WorkId,
    reason: Reason = "",
    output: Output = Format.TABLE,
    url: Url = None,
    key: Key = None,
    config: ConfigFile = None,
) -> None:
    """Put a finished Work back into the queue; it keeps its id and its history."""

    async def work() -> WorkBody:
        body = body_of(RequeueWork, reason=reason)
        async with connect(url, key, config) as client:
            return await client.requeue_work(work_id, body)

    requeued = run(work())
    show(requeued, output, table=lambda: f"work {work_id}: {_queued(requeued)}")


def _submission(*, target: dict[str, Any], **fields: Any) -> SubmitWork:
    """
    Make the body; what was not given is the broker's to decide.

    Raises:
        InvalidInput: Something is missing or out of bounds.
    """
    if not any(target.values()):
        raise InvalidInput(
            "target", "say who may claim the Work: --target KEY=VALUE, --agent or --annotation"
        )
    given = {name: value for name, value in fields.items() if value is not None}
    return body_of(SubmitWork, target=target, **given)


def _teller(output: Format) -> Any:
    """Return who tells the story: on standard output, unless that is for a program."""
    return _tell if output is Format.TABLE else say


def _tell(line: str) -> None:
    print(line, flush=True)


def _end(work: WorkBody, output: Format) -> None:
    """
    Print how a followed Work ended.

    Raises:
        typer.Exit: Always; 0 says that it succeeded.
    """
    show(work, output, table=lambda: render_facts(list_result_facts(work)))
    raise typer.Exit(0 if work.status is WorkState.SUCCEEDED else 1)


def _queued(work: WorkBody) -> str:
    """Say where a Work is that was put back; one whose cancel was requested is not."""
    if work.status.is_finished:
        return f"{work.status.lower()}: its cancel had been requested"
    until = f", not before {render_time(work.not_before)}" if work.not_before else ""
    return f"queued again{until}"


async def _all_events(client: BrokerClient, work_id: UUID) -> AsyncIterator[WorkEvent]:
    after: int | None = 0
    while after is not None:
        page = await client.list_events(work_id, after=after, limit=500)
        for event in page.items:
            yield event
        after = page.next_after


def _print_event(event: WorkEvent, output: Format) -> None:
    """Print one event of a stream, so that each can be read by itself."""
    match output:
        case Format.TABLE:
            words = (render_time(event.at), event.kind, event.actor, plain(render_event(event)))
            _tell("  ".join(words))
        case Format.JSON:
            _tell(event.model_dump_json())
        case Format.YAML:
            _tell("---\n" + yaml.safe_dump(event.model_dump(mode="json"), sort_keys=False).rstrip())
