"""
The fields of a Build and a BuildRun are Shipwright's.

The inputs and verdicts in ``tests/data/shipwright`` are made of Shipwright's own definitions: see
`support.definitions`.  With these in a folder that ``BROKKR_TEST_SHIPWRIGHT`` names, the shapes
are compared with them field by field.
"""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from brokkr.local.build_runner.definitions import render_schema
from brokkr.work.shapes import Fields, find_misfit
from brokkr.work.shipwright import BUILD_RUN_SPEC, BUILD_SPEC
from support.definitions import VERDICTS, accepts, schema_of, without_words

SHAPES = {"Build": BUILD_SPEC, "BuildRun": BUILD_RUN_SPEC}
TABLE: dict[str, dict[str, list[Any]]] = json.loads(VERDICTS.read_text())
FOLDER = os.environ.get("BROKKR_TEST_SHIPWRIGHT")


@pytest.mark.parametrize("kind", SHAPES)
def test_the_schema_of_local_mode_has_the_verdicts_of_shipwright_s_own(kind: str) -> None:
    schema = render_schema(SHAPES[kind])
    verdicts = TABLE[kind]

    assert len(verdicts["accepted"]) > 80
    assert len(verdicts["refused"]) > 150
    assert [each for each in verdicts["accepted"] if not accepts(schema, each)] == []
    assert [each for each in verdicts["refused"] if accepts(schema, each)] == []


@pytest.mark.parametrize("kind", SHAPES)
def test_nothing_that_shipwright_s_definitions_take_has_a_wrong_type_at_submission(
    kind: str,
) -> None:
    assert [each for each in TABLE[kind]["accepted"] if _misfit(SHAPES[kind], each)] == []


@pytest.mark.parametrize("kind", SHAPES)
def test_each_wrong_type_and_each_missing_field_is_told_at_submission(kind: str) -> None:
    """What is left to the cluster or to other checks: texts with a form, and unknown fields."""
    let_pass = [
        json.dumps(each) for each in TABLE[kind]["refused"] if not _misfit(SHAPES[kind], each)
    ]
    forms = ("unknownField", "a lot", '""', "10x", "other", "claims", "platforms", "-1")

    assert [each for each in let_pass if not any(form in each for form in forms)] == []
    assert len(let_pass) < len(TABLE[kind]["refused"]) / 3


def _misfit(shape: Fields, value: Any) -> tuple[str, str] | None:
    return find_misfit(shape, value, "spec")


if FOLDER is not None:  # Shipwright's definitions are not the project's to keep a copy of

    @pytest.mark.parametrize("kind", SHAPES)
    def test_the_schemas_are_those_of_the_definitions_that_are_here(kind: str) -> None:
        assert FOLDER is not None
        theirs = without_words(schema_of(kind, Path(FOLDER)))

        assert without_words(render_schema(SHAPES[kind])) == theirs
