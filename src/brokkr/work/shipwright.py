"""
The fields of Shipwright's Build and BuildRun, and of what Kubernetes has in them.

Source: the resource definitions of Shipwright v0.20 (the API version v1beta1), read as facts:
field names, types, and what is required.  Descriptions and defaults are left out.
"""

from typing import Final

from brokkr.work.shapes import Fields, Flag, ListOf, MapOf, Number, Quantity, Text, fields

_TEXT: Final = Text()
_TEXTS: Final = [_TEXT]
_DURATION: Final = Text(format="duration")
_FLAG: Final = Flag()
_NUMBER: Final = Number()
_INT32: Final = Number(-(2**31), 2**31 - 1, format="int32")
_INT64: Final = Number(format="int64")
_MAP: Final = MapOf(_TEXT)
_RESOURCES: Final = MapOf(Quantity())
_NAMED: Final = {"name": _TEXT}
_KIND: Final = Text(choices=("BuildStrategy", "ClusterBuildStrategy"))

_FIELD: Final = {"apiVersion": _TEXT, "fieldPath!": _TEXT}
_RESOURCE_FIELD: Final = {"containerName": _TEXT, "divisor": Quantity(), "resource!": _TEXT}
_KEY: Final = {"key!": _TEXT, "name": _TEXT, "optional": _FLAG}
_ENV: Final = [
    {
        "name!": _TEXT,
        "value": _TEXT,
        "valueFrom": {
            "configMapKeyRef": _KEY,
            "secretKeyRef": _KEY,
            "fieldRef": _FIELD,
            "resourceFieldRef": _RESOURCE_FIELD,
            "fileKeyRef": {
                "key!": _TEXT,
                "optional": _FLAG,
                "path!": _TEXT,
                "volumeName!": _TEXT,
            },
        },
    }
]

_REFERENCE: Final = {"format": _TEXT, "key!": _TEXT, "name!": _TEXT}
_VALUE: Final = {"value": _TEXT, "configMapValue": _REFERENCE, "secretValue": _REFERENCE}
_PARAM_VALUES: Final = [{"name!": _TEXT, **_VALUE, "values": [_VALUE]}]

_OUTPUT: Final = {
    "image!": _TEXT,
    "insecure": _FLAG,
    "pushSecret": _TEXT,
    "annotations": _MAP,
    "labels": _MAP,
    "timestamp": _TEXT,
    "vulnerabilityScan": {
        "enabled": _FLAG,
        "failOnFinding": _FLAG,
        "ignore": {
            "id": _TEXTS,
            "severity": Text(choices=("low", "medium", "high"), is_closed=True),
            "unfixed": _FLAG,
        },
    },
    "platforms": ListOf(fields({"os!": _TEXT, "arch!": _TEXT}), keys=("os", "arch")),
}

_STEP_RESOURCES: Final = [
    {
        "name!": _TEXT,
        "resources!": {
            "claims": ListOf(fields({"name!": _TEXT, "request": _TEXT}), keys=("name",)),
            "limits": _RESOURCES,
            "requests": _RESOURCES,
        },
    }
]

_TOLERATIONS: Final = [
    {
        "effect": Text(choices=("NoSchedule",)),
        "key": _TEXT,
        "operator": Text(choices=("Exists", "Equal")),
        "tolerationSeconds": _INT64,
        "value": _TEXT,
    }
]

_SCHEDULING: Final = {
    "nodeSelector": _MAP,
    "tolerations": _TOLERATIONS,
    "schedulerName": _TEXT,
    "runtimeClassName": _TEXT,
}

_TRIGGER: Final = {
    "triggerSecret": _TEXT,
    "when": [
        {
            "name!": _TEXT,
            "type!": Text(choices=("GitHub", "Image", "Pipeline")),
            "github": {"branches": _TEXTS, "events": ListOf(_TEXT, at_least=1)},
            "image": {"names": _TEXTS},
            "objectRef": {"name": _TEXT, "selector": _MAP, "status": _TEXTS},
        }
    ],
}

_TTL: Final = {"ttlAfterFailed": _DURATION, "ttlAfterSucceeded": _DURATION}
_LIMIT: Final = Number(1, 10_000)

_LOCAL: Final = {"name": _TEXT, "timeout": _TEXT}
_SOURCE: Final = {
    "type!": Text(choices=("Git", "OCI", "Local")),
    "contextDir": _TEXT,
    "git": {"url!": _TEXT, "revision": _TEXT, "cloneSecret": _TEXT, "depth": _NUMBER},
    "ociArtifact": {
        "image!": _TEXT,
        "prune": Text(choices=("Never", "AfterPull")),
        "pullSecret": _TEXT,
    },
    "local": _LOCAL,
}

_READ_ONLY: Final = {"fsType": _TEXT, "readOnly": _FLAG}
_ITEMS: Final = [{"key!": _TEXT, "mode": _INT32, "path!": _TEXT}]
_DOWNWARD: Final = [
    {"path!": _TEXT, "mode": _INT32, "fieldRef": _FIELD, "resourceFieldRef": _RESOURCE_FIELD}
]
_SELECTOR: Final = {
    "matchLabels": _MAP,
    "matchExpressions": [{"key!": _TEXT, "operator!": _TEXT, "values": _TEXTS}],
}
_KIND_NAME: Final = {"apiGroup": _TEXT, "kind!": _TEXT, "name!": _TEXT}

_VOLUME_SOURCES: Final = {
    "awsElasticBlockStore": {**_READ_ONLY, "partition": _INT32, "volumeID!": _TEXT},
    "azureDisk": {
        **_READ_ONLY,
        "cachingMode": _TEXT,
        "diskName!": _TEXT,
        "diskURI!": _TEXT,
        "kind": _TEXT,
    },
    "azureFile": {"readOnly": _FLAG, "secretName!": _TEXT, "shareName!": _TEXT},
    "cephfs": {
        "monitors!": _TEXTS,
        "path": _TEXT,
        "readOnly": _FLAG,
        "secretFile": _TEXT,
        "secretRef": _NAMED,
        "user": _TEXT,
    },
    "cinder": {**_READ_ONLY, "secretRef": _NAMED, "volumeID!": _TEXT},
    "configMap": {"defaultMode": _INT32, "items": _ITEMS, "name": _TEXT, "optional": _FLAG},
    "csi": {
        **_READ_ONLY,
        "driver!": _TEXT,
        "nodePublishSecretRef": _NAMED,
        "volumeAttributes": _MAP,
    },
    "downwardAPI": {"defaultMode": _INT32, "items": _DOWNWARD},
    "emptyDir": {"medium": _TEXT, "sizeLimit": Quantity()},
    "ephemeral": {
        "volumeClaimTemplate": {
            "metadata": {},
            "spec!": {
                "accessModes": _TEXTS,
                "dataSource": _KIND_NAME,
                "dataSourceRef": {**_KIND_NAME, "namespace": _TEXT},
                "resources": {"limits": _RESOURCES, "requests": _RESOURCES},
                "selector": _SELECTOR,
                "storageClassName": _TEXT,
                "volumeAttributesClassName": _TEXT,
                "volumeMode": _TEXT,
                "volumeName": _TEXT,
            },
        }
    },
    "fc": {**_READ_ONLY, "lun": _INT32, "targetWWNs": _TEXTS, "wwids": _TEXTS},
    "flexVolume": {**_READ_ONLY, "driver!": _TEXT, "options": _MAP, "secretRef": _NAMED},
    "flocker": {"datasetName": _TEXT, "datasetUUID": _TEXT},
    "gcePersistentDisk": {**_READ_ONLY, "partition": _INT32, "pdName!": _TEXT},
    "gitRepo": {"directory": _TEXT, "repository!": _TEXT, "revision": _TEXT},
    "glusterfs": {"endpoints!": _TEXT, "path!": _TEXT, "readOnly": _FLAG},
    "hostPath": {"path!": _TEXT, "type": _TEXT},
    "image": {"pullPolicy": _TEXT, "reference": _TEXT},
    "iscsi": {
        **_READ_ONLY,
        "chapAuthDiscovery": _FLAG,
        "chapAuthSession": _FLAG,
        "initiatorName": _TEXT,
        "iqn!": _TEXT,
        "iscsiInterface": _TEXT,
        "lun!": _INT32,
        "portals": _TEXTS,
        "secretRef": _NAMED,
        "targetPortal!": _TEXT,
    },
    "nfs": {"path!": _TEXT, "readOnly": _FLAG, "server!": _TEXT},
    "persistentVolumeClaim": {"claimName!": _TEXT, "readOnly": _FLAG},
    "photonPersistentDisk": {"fsType": _TEXT, "pdID!": _TEXT},
    "portworxVolume": {**_READ_ONLY, "volumeID!": _TEXT},
    "projected": {
        "defaultMode": _INT32,
        "sources": [
            {
                "clusterTrustBundle": {
                    "labelSelector": _SELECTOR,
                    "name": _TEXT,
                    "optional": _FLAG,
                    "path!": _TEXT,
                    "signerName": _TEXT,
                },
                "configMap": {"items": _ITEMS, "name": _TEXT, "optional": _FLAG},
                "downwardAPI": {"items": _DOWNWARD},
                "podCertificate": {
                    "certificateChainPath": _TEXT,
                    "credentialBundlePath": _TEXT,
                    "keyPath": _TEXT,
                    "keyType!": _TEXT,
                    "maxExpirationSeconds": _INT32,
                    "signerName!": _TEXT,
                    "userAnnotations": _MAP,
                },
                "secret": {"items": _ITEMS, "name": _TEXT, "optional": _FLAG},
                "serviceAccountToken": {
                    "audience": _TEXT,
                    "expirationSeconds": _INT64,
                    "path!": _TEXT,
                },
            }
        ],
    },
    "quobyte": {
        "group": _TEXT,
        "readOnly": _FLAG,
        "registry!": _TEXT,
        "tenant": _TEXT,
        "user": _TEXT,
        "volume!": _TEXT,
    },
    "rbd": {
        **_READ_ONLY,
        "image!": _TEXT,
        "keyring": _TEXT,
        "monitors!": _TEXTS,
        "pool": _TEXT,
        "secretRef": _NAMED,
        "user": _TEXT,
    },
    "scaleIO": {
        **_READ_ONLY,
        "gateway!": _TEXT,
        "protectionDomain": _TEXT,
        "secretRef!": _NAMED,
        "sslEnabled": _FLAG,
        "storageMode": _TEXT,
        "storagePool": _TEXT,
        "system!": _TEXT,
        "volumeName": _TEXT,
    },
    "secret": {"defaultMode": _INT32, "items": _ITEMS, "optional": _FLAG, "secretName": _TEXT},
    "storageos": {
        **_READ_ONLY,
        "secretRef": _NAMED,
        "volumeName": _TEXT,
        "volumeNamespace": _TEXT,
    },
    "vsphereVolume": {
        "fsType": _TEXT,
        "storagePolicyID": _TEXT,
        "storagePolicyName": _TEXT,
        "volumePath!": _TEXT,
    },
}
_VOLUMES: Final = [{"name!": _TEXT, **_VOLUME_SOURCES}]

_BUILD_SPEC: Final = {
    "source": _SOURCE,
    "strategy!": {"name!": _TEXT, "kind": _KIND, "stepResources": _STEP_RESOURCES},
    "paramValues": _PARAM_VALUES,
    "output!": _OUTPUT,
    "timeout": _DURATION,
    "env": _ENV,
    "retention": {
        **_TTL,
        "failedLimit": _LIMIT,
        "succeededLimit": _LIMIT,
        "atBuildDeletion": _FLAG,
    },
    "volumes": _VOLUMES,
    "trigger": _TRIGGER,
    **_SCHEDULING,
}

BUILD_SPEC: Final[Fields] = fields(_BUILD_SPEC)
"""The spec of a Build."""

BUILD_RUN_SPEC: Final[Fields] = fields(
    {
        "build!": {"name": _TEXT, "spec": _BUILD_SPEC},
        "source": {"type!": _TEXT, "local": _LOCAL},
        "serviceAccount": _TEXT,
        "timeout": _DURATION,
        "paramValues": _PARAM_VALUES,
        "output": _OUTPUT,
        "state": _TEXT,
        "env": _ENV,
        "retention": _TTL,
        "volumes": _VOLUMES,
        "stepResources": _STEP_RESOURCES,
        **_SCHEDULING,
    }
)
"""The spec of a BuildRun."""

CONFIG_MAP: Final[Fields] = fields({"data": _MAP, "binaryData": _MAP, "immutable": _FLAG})
"""What a ConfigMap has beside its metadata."""

METADATA: Final[Fields] = fields(
    {
        "name": _TEXT,
        "generateName": _TEXT,
        "namespace": _TEXT,
        "labels": _MAP,
        "annotations": _MAP,
        **dict.fromkeys(
            ("selfLink", "uid", "resourceVersion", "creationTimestamp", "deletionTimestamp"), _TEXT
        ),
        "generation": _NUMBER,
        "deletionGracePeriodSeconds": _NUMBER,
        "ownerReferences": [{}],
        "finalizers": _TEXTS,
        "managedFields": [{}],
    }
)
"""The metadata of any object, as far as it concerns this project."""
