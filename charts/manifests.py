"""
Render both charts for ``kubectl apply``, without Helm being installed: ``make manifests``.

``python charts/manifests.py FOLDER [--broker VALUES] [--agent VALUES]`` takes a file of values
for each, and writes the definition of Work and one file for each chart.
"""

import argparse
from pathlib import Path
from typing import Final

import helm_python
import yaml

CHARTS: Final = Path(__file__).parent
NAMESPACE: Final = "brokkr-system"

FIRST: Final = ("Namespace", "ServiceAccount", "Secret", "ConfigMap", "ClusterRole", "Role")
"""What other objects speak of."""


def main() -> None:
    """Read the command line, and write the files."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    for name in ("broker", "agent"):
        default = CHARTS / f"brokkr-{name}" / "ci" / "default-values.yaml"
        parser.add_argument(f"--{name}", type=Path, default=default, metavar="VALUES")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    crd = CHARTS / "brokkr-agent" / "crds" / "works.brokkr.io.yaml"
    (arguments.folder / "crd.yaml").write_text(crd.read_text())
    for name in ("broker", "agent"):
        values = yaml.safe_load(getattr(arguments, name).read_text())
        text = render(CHARTS / f"brokkr-{name}", values)
        (arguments.folder / f"{name}.yaml").write_text(text)


def render(chart: Path, values: dict[str, object]) -> str:
    """Return all objects of a release that is called like its chart."""
    with helm_python.Chart.load(chart) as loaded:
        found = loaded.render(values, name=chart.name, namespace=NAMESPACE)
    documents = [
        (manifest, document.strip())
        for path, text in sorted(found.items())
        if path.endswith(".yaml")
        for document in text.split("\n---\n")
        if (manifest := yaml.safe_load(document))
    ]
    documents.sort(key=lambda each: _place(each[0]["kind"]))
    return "".join(f"---\n{text}\n" for _, text in documents)


def _place(kind: str) -> int:
    return FIRST.index(kind) if kind in FIRST else len(FIRST)


if __name__ == "__main__":
    main()
