"""Labels from before there was a table for each generator, and of brokers that know none."""

from uuid import UUID, uuid4

from brokkr.broker.db.execution_log import WorkFilter, list_work
from brokkr.broker.db.pool import transaction
from brokkr.broker.db.submissions import Submitted, Submitter
from brokkr.broker.maintenance.labels import LabelCopy
from support.queue import Queue, a_submission

_FORGET = "TRUNCATE generator_labels; UPDATE label_copy SET is_done = false"


async def a_generator(queue: Queue) -> Submitter:
    generator_id = uuid4()
    await queue.pool.execute(
        "INSERT INTO generators (id, name) VALUES ($1, $2)", generator_id, f"g-{generator_id}"
    )
    return Submitter(actor="generator:test", generator_id=generator_id)


async def submit(queue: Queue, by: Submitter, **labels: str) -> UUID:
    [submitted] = await queue.submit_all(a_submission(labels=labels), by=by)
    assert isinstance(submitted, Submitted)
    return submitted.work_id


async def found(queue: Queue, by: Submitter, **labels: str) -> list[UUID]:
    """List a generator's own Work with some labels."""
    async with transaction(queue.pool) as db:
        wanted = WorkFilter(generator_id=by.generator_id, labels=labels)
        return [each.id for each in await list_work(db, wanted, limit=100)]


async def copied(queue: Queue) -> list[tuple[str, UUID]]:
    rows = await queue.pool.fetch("SELECT label, work_id FROM generator_labels ORDER BY 1, 2")
    return [(row["label"], row["work_id"]) for row in rows]


async def test_old_labels_are_copied_and_work_is_found_before_and_after(queue: Queue) -> None:
    agent = await queue.an_agent()
    one, two = await a_generator(queue), await a_generator(queue)
    mine = [await submit(queue, one, team="ml", n=str(number)) for number in range(5)]
    theirs = await submit(queue, two, team="ml")
    await queue.submit(labels={"team": "ml"})  # an admin's
    await queue.complete(await queue.claim(mine[0], by=agent), agent)
    expected = await copied(queue)
    assert len(expected) == 11
    await queue.pool.execute(_FORGET)
    assert await found(queue, one, team="ml") == mine[::-1]

    copy = LabelCopy(pool=queue.pool, batch=3)
    await copy()

    assert copy.is_done
    assert await copied(queue) == expected
    assert await queue.pool.fetchval("SELECT is_done FROM label_copy")
    assert await found(queue, one, team="ml") == mine[::-1]
    assert await found(queue, one, team="ml", n="3") == [mine[3]]
    assert await found(queue, two, team="ml") == [theirs]


async def test_a_replica_that_finds_another_at_it_is_not_done(queue: Queue) -> None:
    by = await a_generator(queue)
    await submit(queue, by, team="ml")
    await queue.pool.execute(_FORGET)
    copy = LabelCopy(pool=queue.pool)
    async with transaction(queue.pool) as db:
        await db.execute("SELECT FROM label_copy FOR UPDATE")
        await copy()
        assert not copy.is_done

    await copy()

    assert copy.is_done
    assert len(await copied(queue)) == 1


async def test_what_a_broker_of_an_earlier_version_submits_is_found(queue: Queue) -> None:
    by = await a_generator(queue)
    work_id = await submit(queue, by, team="ml")
    await queue.pool.execute("TRUNCATE generator_labels, work_labels")

    await queue.pool.execute(
        "INSERT INTO work_labels (label, work_id) VALUES ('team=ml', $1)", work_id
    )

    assert await found(queue, by, team="ml") == [work_id]
