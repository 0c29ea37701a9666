"""The guide to the suite for any cluster lists what the suite wants to be told."""

import re
from pathlib import Path

from support.any_cluster import INSECURE, VARIABLES

GUIDE = Path(__file__).parents[2] / "docs" / "how-to" / "test-against-a-cluster.md"


def test_the_variables_of_the_guide_are_those_of_the_suite() -> None:
    rows = re.findall(r"^\| `(\w+)` \|", GUIDE.read_text(), re.MULTILINE)

    assert rows == [*VARIABLES, INSECURE]
