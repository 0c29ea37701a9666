"""What is done, and when, comes from the seed alone."""

from itertools import islice
from pathlib import Path

from chaos.faults import FAULTS, schedule
from chaos.stream import SORTS, Behaviour, Workshop, planned


def test_the_same_seed_does_the_same_harm_to_the_same_stream() -> None:
    assert schedule(1, 600) == schedule(1, 600)
    assert list(islice(planned("1"), 50)) == list(islice(planned("1"), 50))
    assert schedule(1, 600) != schedule(2, 600)


def test_a_longer_run_begins_as_a_shorter_one() -> None:
    short = schedule(1, 60)

    assert schedule(1, 600)[: len(short)] == short


def test_every_fault_is_done_once_before_one_is_done_again() -> None:
    first = schedule(3, 3600)[: len(FAULTS)]

    assert {each.name for each in first} == set(FAULTS)


def test_every_sort_of_work_is_submitted_and_the_build_runner_can_read_how_it_ends() -> None:
    several = list(islice(planned("4"), 500))

    assert {each.sort for each in several} == set(SORTS)
    assert all(Behaviour.of_image(each.behaviour.image) == each.behaviour for each in several)


def test_each_real_build_has_a_repository_of_its_own_and_the_real_sources() -> None:
    workshop = Workshop(source="http://127.0.0.1:1/chaos.git", registry="127.0.0.1:2")
    real = [each for each in islice(planned("5"), 200) if SORTS[each.sort].is_real]
    specs = [body["template"]["spec"] for each in real for body in each.bodies(workshop)]
    images = [spec["output"]["image"] for spec in specs]

    assert images == [f"127.0.0.1:2/chaos/{key}" for each in real for key in each.keys]
    assert len(set(images)) == len(images) > 1
    assert {spec["source"]["git"]["url"] for spec in specs} == {workshop.source}


def test_the_page_about_faults_names_each_of_them() -> None:
    page = (Path(__file__).parents[2] / "docs" / "explanation" / "faults.md").read_text()
    table = page.partition("## The faults")[2].partition("## What must hold")[0]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| ")]

    named = {name.strip() for row in rows[1:] for name in row.split(",")}

    assert named == set(FAULTS)
