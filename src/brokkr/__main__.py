"""``python -m brokkr``."""

from brokkr.cli.main import main

main()
