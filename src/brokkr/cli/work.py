"""``brokkr work``: for those who have something to be done."""

from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import typer
from pydantic import ValidationError

from brokkr.cli.arguments import parse_pairs, read_template
from brokkr.cli.follow import follow as follow_work
from brokkr.cli.output import (
    Format,
    Output,
    render_columns,
    render_facts,
    render_size,
    render_time,
    say,
    show,
)
from brokkr.cli.run import run
from brokkr.cli.settings import ConfigFile, Key, Url, connect
from brokkr.wire.bodies import SubmitWork, WorkBody, WorkPage, WorkState
from brokkr.work.errors import InvalidInput

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)

WorkId = Annotated[UUID, typer.Argument(metavar="ID", help="The Work's id.")]
Follow = Annotated[
    bool, typer.Option("--follow", "-f", help="Tell what happens until the Work is finished.")
]


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
    max_retries: Annotated[int | None, typer.Option(help="How many failures to forgive.")] = None,
    priority: Annotated[int | None, typer.Option(help="Higher goes first.")] = None,
    claim_timeout: Annotated[
        int | None,
        typer.Option(metavar="SECONDS", help="How long a silent agent keeps the Work."),
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
            max_retries=max_retries,
            priority=priority,
            claim_timeout_seconds=claim_timeout,
        )
        async with connect(url, key, config) as client:
            submitted = await client.submit_work(body)
            if not follow:
                return submitted
            tell = _teller(output)
            tell(f"work {submitted.id}")
            return await follow_work(client, submitted, say=tell)

    submitted = run(work())
    if follow:
        _end(submitted, output)
    show(submitted, output, table=lambda: _receipt(submitted))


@app.command(name="list")
def list_(
    work_type: Annotated[str | None, typer.Option("--type", help="Only of this type.")] = None,
    status: Annotated[
        WorkState | None, typer.Option(case_sensitive=False, help="Only in this state.")
    ] = None,
    agent: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only what this agent has or had.")
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
    """List Work, queued and finished, the newest first."""

    async def work() -> WorkPage:
        async with connect(url, key, config) as client:
            agent_id = None if agent is None else str((await client.get_agent(agent)).id)
            return await client.list_work(
                type=work_type,
                status=status,
                agent_id=agent_id,
                since=since,
                limit=limit,
                cursor=cursor,
            )

    page = run(work())
    show(page, output, table=lambda: _table(page))
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
    show(found, output, table=lambda: render_facts(_facts(found)))


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
    try:
        return SubmitWork.model_validate({**given, "target": target})
    except ValidationError as error:
        first = error.errors()[0]
        raise InvalidInput(".".join(map(str, first["loc"])), first["msg"]) from error


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
    show(work, output, table=lambda: render_facts(_result_facts(work)))
    raise typer.Exit(0 if work.status is WorkState.SUCCEEDED else 1)


def _receipt(work: WorkBody) -> str:
    agents = {None: "", 0: "; no agent matches its target now", 1: "; 1 agent matches its target"}
    many = f"; {work.eligible_agents} agents match its target"
    return f"work {work.id} is {work.status}{agents.get(work.eligible_agents, many)}"


def _table(page: WorkPage) -> str:
    head = ("ID", "TYPE", "STATUS", "AGENT", "RETRIES", "SUBMITTED", "MESSAGE")
    return render_columns(
        head,
        [
            (
                str(each.id),
                each.work_type,
                each.status,
                each.agent or "-",
                str(_retries(each)),
                render_time(each.created_at),
                (each.result_message or (each.progress.message if each.progress else "")),
            )
            for each in page.items
        ],
    )


def _retries(work: WorkBody) -> int:
    if work.retries_attempted is not None:
        return work.retries_attempted
    return work.progress.retries if work.progress else 0


def _facts(work: WorkBody) -> list[tuple[str, str]]:
    message = work.result_message or (work.progress.message if work.progress else "")
    agents = "" if work.eligible_agents is None else str(work.eligible_agents)
    return [
        ("id", str(work.id)),
        ("type", work.work_type),
        ("status", work.status),
        ("agent", work.agent or ""),
        ("matching agents", agents),
        ("retries", f"{_retries(work)} of {work.max_retries}"),
        ("lost claims", str(work.lost_claims or "")),
        ("submitted", render_time(work.created_at)),
        ("claimed", render_time(work.claimed_at)),
        ("cancel requested", render_time(work.cancel_requested_at)),
        ("completed", render_time(work.completed_at)),
        ("message", message),
        *_result_facts(work),
    ]


def _result_facts(work: WorkBody) -> list[tuple[str, str]]:
    """Pick from the result, which is the agent's word, what a person looks for first."""
    result = work.result or {}
    git, size = result.get("git") or {}, result.get("size")
    commit = [git.get("commit_sha"), git.get("commit_author"), git.get("branch")]
    return [
        ("image", str(result.get("image") or "")),
        ("digest", str(result.get("digest") or "")),
        ("size", render_size(size) if isinstance(size, int) else ""),
        ("commit", ", ".join(str(each) for each in commit if each)),
        ("build run", str(result.get("build_run") or "")),
    ]
