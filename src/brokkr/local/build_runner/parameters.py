"""
Check and merge the parameters of a build strategy (pure).

Builds and BuildRuns give values by name, the BuildRun's win; the strategy says which names
exist, of which type, and with which defaults.
"""

from collections.abc import Callable

from brokkr.work.model import Manifest

# The names that Shipwright keeps for itself.
_RESTRICTED = {"BUILDER_IMAGE", "DOCKERFILE", "CONTEXT_DIR"}

Problem = tuple[str, str]


def merge_by_name(build: list[Manifest], run: list[Manifest]) -> list[Manifest]:
    """Put the BuildRun's entries in the place of the Build's of the same name."""
    if not run:
        return build  # as it is: Shipwright does not look for names that stand there twice
    merged = {entry["name"]: entry for entry in (*build, *run)}
    return list(merged.values())


def find_refused(values: list[Manifest]) -> str | None:
    """
    Say for what Tekton refuses the TaskRun that Shipwright makes of these values.

    Shipwright then tries again for ever, and its BuildRun says nothing.
    """
    for index, value in enumerate(values):
        if value.get("values") == []:
            return f"the parameter {value['name']} is an empty array"
        if value["name"] in [each["name"] for each in values[:index]]:
            return f"the parameter {value['name']} is given twice"
    return None


def find_problem(strategy: Manifest, values: list[Manifest]) -> Problem | None:
    """
    Find the first thing that is wrong with the values of a Build, as (reason, message).

    Values that are missing are not looked for: a BuildRun may still bring them.
    """
    kinds = {known["name"]: known.get("type", "string") for known in _parameters(strategy)}

    def is_wrong_type(value: Manifest) -> bool:
        if kinds[value["name"]] == "array":
            return bool(_sources(value))
        return "values" in value

    checks: list[tuple[str, str, Callable[[Manifest], bool]]] = [
        (
            "RestrictedParametersInUse",
            "The following parameters are restricted and cannot be set",
            lambda value: value["name"] in _RESTRICTED or value["name"].startswith("shp-"),
        ),
        (
            "UndefinedParameter",
            "The following parameters are not defined in the build strategy",
            lambda value: value["name"] not in kinds,
        ),
        (
            "WrongParameterValueType",
            "The values for the following parameters are using the wrong type",
            is_wrong_type,
        ),
        (
            "InconsistentParameterValues",
            "The following parameters have more than one of value, configMapValue and secretValue",
            lambda value: any(len(_sources(item)) > 1 for item in _items(value)),
        ),
        (
            "EmptyArrayItemParameterValues",
            "The following array parameters have an item without a value",
            lambda value: any(not _sources(item) for item in value.get("values", [])),
        ),
        (
            "IncompleteConfigMapValueParameterValues",
            "The following parameters do not name a ConfigMap and a key in it",
            lambda value: _is_incomplete(value, "configMapValue"),
        ),
        (
            "IncompleteSecretValueParameterValues",
            "The following parameters do not name a Secret and a key in it",
            lambda value: _is_incomplete(value, "secretValue"),
        ),
    ]
    for reason, message, is_wrong in checks:
        names = [value["name"] for value in values if is_wrong(value)]
        if names:
            return reason, f"{message}: {', '.join(names)}"
    return None


def find_missing(strategy: Manifest, values: list[Manifest]) -> Problem | None:
    """Find the parameters that have neither a value nor a default, as (reason, message)."""
    given = {value["name"] for value in values if "values" in value or _sources(value)}
    missing = [
        known["name"]
        for known in _parameters(strategy)
        if known["name"] not in given and "default" not in known and "defaults" not in known
    ]
    if not missing:
        return None
    return (
        "MissingParameterValues",
        "The following parameters are required but no value has been provided: "
        + ", ".join(missing),
    )


def value_of(strategy: Manifest, values: list[Manifest], name: str) -> list[Manifest]:
    """List the items of a parameter, or of its default; a string has one item."""
    given = next((value for value in values if value["name"] == name), None)
    if given is not None and ("values" in given or _sources(given)):
        return list(_items(given))
    known = next((one for one in _parameters(strategy) if one["name"] == name), {})
    if "default" in known:
        return [{"value": known["default"]}]
    return [{"value": default} for default in known.get("defaults") or []]


def _parameters(strategy: Manifest) -> list[Manifest]:
    parameters: list[Manifest] = strategy.get("spec", {}).get("parameters") or []
    return parameters


def _sources(item: Manifest) -> list[str]:
    return [key for key in ("value", "configMapValue", "secretValue") if item.get(key) is not None]


def _items(value: Manifest) -> list[Manifest]:
    items: list[Manifest] = value.get("values", [value])
    return items


def _is_incomplete(value: Manifest, source: str) -> bool:
    references = [item[source] for item in _items(value) if item.get(source) is not None]
    return any(not (one.get("name") and one.get("key")) for one in references)
