"""Who may import whom: the contracts stand in ``pyproject.toml``."""

from pathlib import Path

from importlinter.application.use_cases import lint_imports
from importlinter.configuration import configure

PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"


def test_the_import_contracts_hold() -> None:
    configure()

    assert lint_imports(str(PYPROJECT), cache_dir=None, no_logo=True), "see the report above"
