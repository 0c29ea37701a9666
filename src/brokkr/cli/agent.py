"""``brokkr agent``: run an agent, and say which agents there are."""

import asyncio
from contextlib import suppress
from datetime import timedelta
from importlib.resources import files
from pathlib import Path
from typing import Annotated

import structlog
import typer

from brokkr.agent.app import run as run_agent
from brokkr.agent.kube.errors import KubeError
from brokkr.agent.kube.permissions import (
    AGENT_NAMESPACE,
    SERVICE_ACCOUNT,
    WORK_NAMESPACE,
    render_yaml,
)
from brokkr.cli.arguments import parse_changes, parse_pairs
from brokkr.cli.logs import log_to_stderr
from brokkr.cli.output import (
    Format,
    Output,
    render_columns,
    render_facts,
    render_pairs,
    render_time,
    show,
)
from brokkr.cli.run import fail, run
from brokkr.cli.settings import ConfigFile, Key, Settings, Url, connect, is_sent_in_the_clear
from brokkr.configuration import load
from brokkr.wire.bodies import (
    AgentBody,
    AgentPage,
    Capabilities,
    RegisterAgent,
    RegisteredAgent,
    RelabelAgent,
)
from brokkr.work.errors import BrokkrError

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)

_log = structlog.get_logger()
_LONGEST_SECONDS = 365 * 86400

Pairs = list[str] | None
Name = Annotated[str, typer.Argument(metavar="AGENT", help="Its name or id.")]


@app.command(name="run")
def run_(
    broker_url: Annotated[str | None, typer.Option(help="Where the broker is.")] = None,
    key: Annotated[str | None, typer.Option(help="The agent's own key.")] = None,
    kubeconfig: Annotated[
        Path | None,
        typer.Option(help="Which cluster; default: KUBECONFIG, the pod's own, ~/.kube/config."),
    ] = None,
    namespace: Annotated[str | None, typer.Option(help="Where Work is run.")] = None,
    config: ConfigFile = None,
) -> None:
    """Claim Work and run it in this cluster, until SIGTERM or Ctrl-C."""

    async def work() -> None:
        settings = load(
            Settings,
            file=config,
            flags={
                "agent.broker_url": broker_url,
                "agent.key": key,
                "agent.kubeconfig": kubeconfig,
                "agent.work_crd.namespace": namespace,
            },
            # A kubeconfig may name a program to run and a file to send, and it is the agent's key
            # that brings Work there.
            sent_to={"agent.key": ("agent.broker_url", "agent.kubeconfig")},
        )
        log_to_stderr(settings.agent.log_format, settings.agent.log_level)
        if is_sent_in_the_clear(settings.agent.broker_url):
            _log.warning("the key is sent unencrypted", broker_url=settings.agent.broker_url)
        with suppress(asyncio.CancelledError):  # to be stopped is how an agent ends
            await run_agent(settings.agent)

    try:
        run(work())
    except KubeError as error:
        fail(BrokkrError(f"the cluster: {error}"))


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="A name that no other agent has.")],
    cluster_name: Annotated[str, typer.Option(help="The cluster that it runs in.")] = "",
    label: Annotated[
        Pairs, typer.Option(metavar="KEY=VALUE", help="What targets select it by. Repeatable.")
    ] = None,
    annotation: Annotated[
        Pairs, typer.Option(metavar="KEY=VALUE", help="More that targets may ask for. Repeatable.")
    ] = None,
    output: Output = Format.TABLE,
    url: Url = None,
    admin_key: Key = None,
    config: ConfigFile = None,
) -> None:
    """Register an agent and print its key, which is shown only now."""

    async def work() -> RegisteredAgent:
        body = RegisterAgent(
            name=name,
            cluster_name=cluster_name,
            labels=parse_pairs(label or [], option="--label"),
            annotations=parse_pairs(annotation or [], option="--annotation"),
        )
        async with connect(url, admin_key, config) as client:
            return await client.register_agent(body)

    agent = run(work())
    show(
        agent,
        output,
        table=lambda: (
            f"agent {agent.name} is registered as {agent.id}\n"
            f"its key, shown only now, for [agent] key or BROKKR__AGENT__KEY:\n{agent.key}"
        ),
    )


@app.command(name="list")
def list_(
    output: Output = Format.TABLE,
    url: Url = None,
    key: Key = None,
    config: ConfigFile = None,
) -> None:
    """List all agents by name."""

    async def work() -> AgentPage:
        async with connect(url, key, config) as client:
            page = await client.list_agents()
            agents = page.items
            while page.next_cursor:
                page = await client.list_agents(cursor=page.next_cursor)
                agents = agents + page.items
            return AgentPage(items=agents)

    page = run(work())
    show(page, output, table=lambda: _table(page.items))


@app.command()
def label(
    agent: Name,
    changes: Annotated[
        list[str], typer.Argument(metavar="KEY=VALUE|KEY-", help="What to set and to remove.")
    ],
    output: Output = Format.TABLE,
    url: Url = None,
    key: Key = None,
    config: ConfigFile = None,
) -> None:
    """Set labels (gpu=true) and remove labels (zone-); pending Work follows at once."""

    async def work() -> AgentBody:
        body = RelabelAgent(labels=parse_changes(changes))
        async with connect(url, key, config) as client:
            return await client.relabel_agent(agent, body)

    changed = run(work())
    show(changed, output, table=lambda: _table([changed]))


@app.command()
def get(
    agent: Name,
    output: Output = Format.TABLE,
    url: Url = None,
    key: Key = None,
    config: ConfigFile = None,
) -> None:
    """Show one agent: what it is, what it can execute, and how much it holds."""

    async def work() -> AgentBody:
        async with connect(url, key, config) as client:
            return await client.get_agent(agent)

    found = run(work())
    show(found, output, table=lambda: render_facts(_facts(found)))


@app.command()
def drain(
    agent: Name,
    output: Output = Format.TABLE,
    url: Url = None,
    key: Key = None,
    config: ConfigFile = None,
) -> None:
    """Offer an agent no more Work; what it holds goes on."""

    async def work() -> AgentBody:
        async with connect(url, key, config) as client:
            return await client.drain_agent(agent)

    drained = run(work())
    held = (
        "it holds nothing" if not drained.claimed else f"what it holds goes on: {drained.claimed}"
    )
    show(drained, output, table=lambda: f"agent {drained.name} is drained; {held}")


@app.command()
def undrain(
    agent: Name,
    output: Output = Format.TABLE,
    url: Url = None,
    key: Key = None,
    config: ConfigFile = None,
) -> None:
    """Offer a drained agent Work again."""

    async def work() -> AgentBody:
        async with connect(url, key, config) as client:
            return await client.undrain_agent(agent)

    undrained = run(work())
    show(undrained, output, table=lambda: f"agent {undrained.name} is offered Work again")


@app.command()
def crd() -> None:
    """Print the definition of the Work resource, for `kubectl apply -f -`."""
    print(files("brokkr.agent.kube").joinpath("crd.yaml").read_text(), end="")


@app.command()
def rbac(
    namespace: Annotated[str, typer.Option(help="Where Work is run.")] = WORK_NAMESPACE,
    agent_namespace: Annotated[
        str, typer.Option(help="Where the agent itself runs.")
    ] = AGENT_NAMESPACE,
    service_account: Annotated[str, typer.Option(help="As whom it runs there.")] = SERVICE_ACCOUNT,
) -> None:
    """Print the agent's permissions, for `kubectl apply -f -`."""
    print(
        render_yaml(
            namespace=namespace, agent_namespace=agent_namespace, service_account=service_account
        ),
        end="",
    )


def _table(agents: list[AgentBody]) -> str:
    head = ("NAME", "ID", "CLUSTER", "LABELS", "TYPES", "HOLDS", "FREE", "DRAINED", "LAST SEEN")
    return render_columns(
        head,
        [
            (
                each.name,
                str(each.id),
                each.cluster_name or "-",
                render_pairs(each.labels) or "-",
                _types(each, marked=True) or "-",
                str(each.claimed),
                _free(each) or "-",
                "yes" if each.drained_at else "no",
                render_time(each.last_seen_at) or "never",
            )
            for each in agents
        ],
    )


def _facts(agent: AgentBody) -> list[tuple[str, str]]:
    known = agent.capabilities or Capabilities(types=[])
    # What keeps it from all work is said once.
    unavailable = [] if known.unable else sorted(known.unavailable.items())
    return [
        ("name", agent.name),
        ("id", str(agent.id)),
        ("cluster", agent.cluster_name),
        ("labels", render_pairs(agent.labels)),
        ("annotations", render_pairs(agent.annotations)),
        ("unable", _unable(agent)),
        ("work types", _types(agent)),
        *((f"{each} unavailable", why or "no reason given") for each, why in unavailable),
        ("strategies", ", ".join(known.strategies)),
        ("version", known.version),
        ("holds", str(agent.claimed)),
        ("free slots", _free(agent)),
        ("registered", render_time(agent.created_at)),
        ("last seen", render_time(agent.last_seen_at) or "never"),
        ("drained since", render_time(agent.drained_at)),
    ]


def _types(agent: AgentBody, *, marked: bool = False) -> str:
    """Render what it can execute; ``marked``, also what it cannot execute now."""
    known = agent.capabilities or Capabilities(types=[])
    able = [each for each in known.types if each not in known.unavailable]
    why = f"unable: {known.unable.reason}" if known.unable else "unavailable"
    unable = [f"{each} ({why})" for each in sorted(known.unavailable)] if marked else []
    return ",".join([*able, *unable])


def _unable(agent: AgentBody) -> str:
    """Say since when and why it cannot work in its cluster; nothing if it can."""
    unable = agent.capabilities and agent.capabilities.unable
    if not unable:
        return ""
    seconds = timedelta(seconds=min(unable.seconds, _LONGEST_SECONDS))
    since = agent.last_seen_at and render_time(agent.last_seen_at - seconds)
    return f"{unable.cause} (since {since})" if since else unable.cause


def _free(agent: AgentBody) -> str:
    """Render what the agent last said; nothing if it does not say."""
    capacity = agent.capacity
    return f"{capacity.free} of {capacity.max_concurrent}" if capacity else ""
