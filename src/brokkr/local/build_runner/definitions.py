"""
The resource definitions of local mode's Shipwright and Tekton.

``crds.yaml`` has all of them but for what a Build's and a BuildRun's ``spec`` may hold: that is
made of :mod:`brokkr.work.shipwright`, so that local mode's API server refuses what Shipwright's
definitions refuse, and takes what they take.
"""

# Note [Empty strings]
#
# The validator of Kubernetes 1.20, compiled by a newer Go than its own, takes an empty string for
# null and refuses it, unless null is allowed.  Shipwright's definitions take empty strings.  So
# null is allowed here too, and taken out again before anything is done with an object, as a
# real API server does.  Nulls in lists and for required fields are what remains of the
# difference; the agent refuses those before.

from pathlib import Path
from typing import Any, Final

import yaml

from brokkr.work.model import Manifest
from brokkr.work.shapes import Fields, Flag, ListOf, MapOf, Number, Quantity, Shape, Text
from brokkr.work.shipwright import BUILD_RUN_SPEC, BUILD_SPEC

_SPECS: Final = {"builds.shipwright.io": BUILD_SPEC, "buildruns.shipwright.io": BUILD_RUN_SPEC}

# Source: Kubernetes' documentation of quantities ("resource.Quantity", serialization format).
_QUANTITY: Final = {
    "x-kubernetes-int-or-string": True,
    "anyOf": [{"type": "integer"}, {"type": "string"}],
    "pattern": r"^[+-]?(\d+\.?\d*|\.\d+)([KMGTPE]i|[numkMGTPE]|[eE][+-]?(\d+\.?\d*|\.\d+))?$",
}


def definitions() -> list[Manifest]:
    """Return them all."""
    text = Path(__file__).with_name("crds.yaml").read_text()
    found = [each for each in yaml.safe_load_all(text) if each]
    for crd in found:
        spec = _SPECS.get(crd["metadata"]["name"])
        if spec is not None:
            (version,) = crd["spec"]["versions"]
            schema = version["schema"]["openAPIV3Schema"]
            schema["required"] = ["spec"]
            schema["properties"]["spec"] = render_schema(spec)
    return found


def without_nulls(value: Any) -> Any:
    """Leave out fields that are null: see Note [Empty strings]."""
    if isinstance(value, dict):
        return {name: without_nulls(each) for name, each in value.items() if each is not None}
    return [without_nulls(each) for each in value] if isinstance(value, list) else value


def render_schema(shape: Shape) -> dict[str, Any]:
    """Render a shape as the schema that a resource definition has: structural, and pruned."""
    match shape:
        case Text(format, choices, is_closed):
            if is_closed:
                return {"type": "string", "enum": list(choices)}
            # See Note [Empty strings].
            return {"type": "string", **({"format": format} if format else {"nullable": True})}
        case Number(least, most, format):
            bounds = {} if most == 2**63 - 1 or format else {"minimum": least, "maximum": most}
            return {"type": "integer", **({"format": format} if format else {}), **bounds}
        case Flag():
            return {"type": "boolean"}
        case Quantity():
            return dict(_QUANTITY)
        case ListOf(item, at_least, keys):
            unique = {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": list(keys)}
            items = render_schema(item)
            for key in keys:
                items["properties"][key].pop("nullable")  # a key may not be null
            return {
                "type": "array",
                "items": items,
                **({"minItems": at_least} if at_least else {}),
                **(unique if keys else {}),
            }
        case MapOf(item):
            return {"type": "object", "additionalProperties": render_schema(item)}
        case Fields(known, required):
            return {
                "type": "object",
                **({"required": list(required)} if required else {}),
                **(
                    {"properties": {n: render_schema(s) for n, s in known.items()}} if known else {}
                ),
            }
