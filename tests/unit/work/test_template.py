import json
from contextlib import suppress
from time import process_time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brokkr.work.errors import InvalidWork
from brokkr.work.model import Manifest
from brokkr.work.template import (
    MAX_BYTES,
    MAX_DEPTH,
    MAX_DOCUMENTS,
    MAX_VALUES,
    check_template,
    documents,
)
from support.templates import a_build, a_build_run, a_config_map, a_list

URL = "https://git.example/hello.git"
SECRET = "https://user:secret@git.example/hello.git"


def nested(depth: int) -> Any:
    value: Any = "leaf"
    for _ in range(depth):
        value = {"deeper": value}
    return value


def source(url: str) -> Manifest:
    return {"source": {"type": "Git", "git": {"url": url}}}


@pytest.mark.parametrize(
    "template",
    [
        a_build(),
        a_list(a_build()),
        a_list(a_build(), a_build_run(), a_config_map()),
        a_build(metadata={}),
        a_build(metadata={"name": "hello", "namespace": "brokkr-agent"}),
        a_build(spec={"source": None}),
        a_build(spec={"source": {"type": "OCI", "ociArtifact": {"image": "r/source"}}}),
        a_build(spec={"fromTheFuture": [1, 2.5, None, True, {"a": "b"}]}),
        a_build(spec=source("git@git.example:team/hello.git")),
        a_build(spec=source("ssh://git@git.example/team/hello.git")),
        a_list(a_build(), a_build_run(spec={"build": {}})),
    ],
)
def test_what_an_agent_can_run_is_accepted(template: Manifest) -> None:
    check_template("build", template, namespace="brokkr-agent")


@pytest.mark.parametrize(
    ("template", "field"),
    [
        ({}, "template.kind"),
        (a_build(kind="Secret"), "template.kind"),
        (a_build(kind="ClusterBuildStrategy"), "template.kind"),
        (a_build(apiVersion="shipwright.io/v1alpha1"), "template.kind"),
        (a_list(a_build(), {"apiVersion": "v1", "kind": "Pod"}), "template.items[1].kind"),
        (a_list(a_list(a_build())), "template.items[0].kind"),
        (a_list(), "template.items"),
        ({"apiVersion": "v1", "kind": "List", "items": {}}, "template.items"),
        ({"apiVersion": "v1", "kind": "List", "items": ["Build"]}, "template.items"),
        (a_list(*[a_config_map()] * (MAX_DOCUMENTS + 1)), "template"),
        (a_list(a_build_run()), "template"),
        (a_list(a_build(), a_build()), "template"),
        (a_list(a_build(), a_build_run(), a_build_run()), "template"),
        (a_list(a_build(), a_config_map(metadata={})), "template.items[1].metadata.name"),
        (a_build(metadata=None), "template.metadata"),
        (a_build() | {"spec": "all"}, "template.spec"),
        (a_build() | {"spec": {}}, "template.spec.strategy.name"),
        (a_build(spec={"output": {}}), "template.spec.output.image"),
        (a_build(metadata={"name": "Hello"}), "template.metadata.name"),
        (a_build(metadata={"name": "h" * 64}), "template.metadata.name"),
        (a_build(metadata={"name": 7}), "template.metadata.name"),
        (a_build(metadata={"namespace": "kube-system"}), "template.metadata.namespace"),
        (a_build(metadata={"generateName": "hello-"}), "template.metadata.generateName"),
        (a_build(metadata={"ownerReferences": []}), "template.metadata.ownerReferences"),
        (a_build(metadata={"finalizers": ["x/y"]}), "template.metadata.finalizers"),
        (a_build(spec={"source": {"type": "Git"}}), "template.spec.source.git"),
        (a_build(spec={"source": {"git": {"url": "u"}}}), "template.spec.source.type"),
        (a_build(spec={"source": {"type": "Local", "local": {}}}), "template.spec.source.type"),
        (
            a_build(
                spec={
                    "source": {"type": "Git", "git": {"url": URL}, "ociArtifact": {"image": "a/b"}}
                }
            ),
            "template.spec.source.git",
        ),
        (
            a_list(a_build(), a_build_run(spec={"build": {"spec": {}}})),
            "template.items[1].spec.build.spec",
        ),
        (a_list(a_build(), a_build_run(spec={"build": "hello"})), "template.items[1].spec.build"),
        (
            a_list(a_build(), a_build_run(spec={"build": {"name": "other"}})),
            "template.items[1].spec.build.name",
        ),
        (a_list(a_build(), a_build_run(spec={"state": "x"})), "template.items[1].spec.state"),
        (
            a_list(a_build(), a_build_run(spec={"source": {"type": "Local"}})),
            "template.items[1].spec.source",
        ),
        (a_build(metadata={"name": "a..b"}), "template.metadata.name"),
        (a_build(metadata={"name": "a.-b"}), "template.metadata.name"),
        (a_build(spec={"deep": nested(MAX_DEPTH)}), "template"),
        (a_build(spec={"many": [0] * MAX_VALUES}), "template"),
        (a_build(spec={"large": "x" * MAX_BYTES}), "template"),
        (a_build(spec={"large": "ü" * (MAX_BYTES // 2)}), "template"),
        (a_build(spec={"env": "a\0b"}), "template.spec.env"),
        (a_build(spec={"env": "\ud800"}), "template.spec.env"),
    ],
)
def test_what_no_agent_should_run_is_refused_by_field(template: Manifest, field: str) -> None:
    with pytest.raises(InvalidWork) as refusal:
        check_template("build", template, namespace="brokkr-agent")

    assert refusal.value.field == field


@pytest.mark.parametrize(
    "url",
    [
        "https://user:secret@git.example/hello.git",
        "https://token@git.example/hello.git",
        "HTTPS://token@git.example/hello.git",
        "ssh://git:secret@git.example/hello.git",
        "see https://:secret@git.example/ for more",
        "http://good.example/ and https://token@git.example/",
        "x" * 1000 + "https://token@git.example/",
    ],
)
def test_credentials_in_a_url_are_refused_wherever_they_stand(url: str) -> None:
    for template in (
        a_build(spec=source(url)),
        a_build(metadata={"name": "hello", "annotations": {"note": url}}),
        a_list(a_build(), a_config_map(data={url: ""})),
    ):
        with pytest.raises(InvalidWork) as refusal:
            check_template("build", template)

        assert "credentials" in refusal.value.problem
        assert "secret@" not in str(refusal.value.problem)


TOKEN = "ghp_q7Zk2Xw9Rt4Vb6Nm1Hs8Jd3Lf5Gp0CyQ7zK2"
KEY = "-----BEGIN RSA PRIVATE KEY-----\nMIIEq7Zk2Xw9Rt4Vb6Nm1Hs8\n-----END RSA PRIVATE KEY-----\n"
AUTHS = '{"auths": {"registry.example": {"auth": "Y2k6cTdaazJYdzk="}}}'


def refused_at(template: Manifest) -> str:
    with pytest.raises(InvalidWork, match="holds a credential") as refusal:
        check_template("build", template)
    said = str(refusal.value)
    assert not any(each in said for each in ("q7Zk2Xw9", "Y2k6", "ZHVtbX", "LS0tLS"))
    return refusal.value.field


@pytest.mark.parametrize(
    "url",
    [
        "https://git.example/hello.git?access_token=q7Zk2Xw9",
        "https://git.example/hello.git?a=1&private_token=q7Zk2Xw9",
        "//ci:q7Zk2Xw9@git.example/hello.git",
        "ci:q7Zk2Xw9@git.example:team/hello.git",
        "https://ci:q7Zk/2Xw9@git.example/hello.git",
        f"https://git.example/{TOKEN}/hello.git",
    ],
)
def test_a_credential_in_the_url_of_a_source_is_refused(url: str) -> None:
    with pytest.raises(InvalidWork, match="holds a credential") as refusal:
        check_template("build", a_build(spec=source(url)))

    assert refusal.value.field == "template.spec.source.git.url"
    assert "2Xw9" not in str(refusal.value)


@pytest.mark.parametrize(
    "text",
    [
        KEY,
        KEY.replace("\n", "\\n"),
        AUTHS,
        AUTHS.replace('"', '\\"'),
        "LS0tLS1CRUdJTiBSU0EgUFJJVkFURSBLRVktLS0tLQpNSUlFcTda",
        "eyJhdXRocyI6eyJyIjp7ImF1dGgiOiJkWE5sY2pwd2R3PT0ifX19",
        "line\nAKIAQ7ZK2XW5RT4VB6NM",
        "//npm.example/:_authToken=npm_q7Zk2Xw9Rt4Vb6Nm1Hs8Jd3Lf5Gp0CyQ7zK2",
        "glpat-q7Zk2Xw9Rt4Vb6Nm1Hs8",
    ],
)
def test_a_key_in_a_config_map_is_refused(text: str) -> None:
    config_map = a_config_map(data={"file": f"before\n{text}"})

    assert refused_at(a_list(a_build(), config_map)) == "template.items[1].data.file"


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"env": [{"name": "A", "value": "a"}, {"name": "X", "value": TOKEN}]}, "env[1].value"),
        ({"env": [{"name": "NPM_TOKEN", "value": "q7Zk2Xw9Rt4V"}]}, "env[0]"),
        ({"env": [{"value": "q7Zk2Xw9Rt4V", "name": "DB_PASSWORD"}]}, "env[0]"),
        ({"paramValues": [{"name": "api-key", "value": "q7Zk2Xw9Rt4V"}]}, "paramValues[0]"),
        (
            {"paramValues": [{"name": "build-args", "values": [{"value": "TOKEN=q7Zk2Xw9Rt4V"}]}]},
            "paramValues[0]",
        ),
        (
            {"paramValues": [{"name": "build-args", "values": [{"value": f"X={TOKEN}"}]}]},
            "paramValues[0].values[0].value",
        ),
    ],
)
def test_a_secret_value_is_refused(spec: Manifest, field: str) -> None:
    assert refused_at(a_build(spec=spec)) == f"template.spec.{field}"


@pytest.mark.parametrize("where", ["labels", "annotations"])
def test_a_token_in_the_metadata_is_refused(where: str) -> None:
    metadata = {"name": "hello", where: {"note": TOKEN}}

    assert refused_at(a_build(metadata=metadata)) == f"template.metadata.{where}.note"


def test_a_token_as_a_name_is_refused_without_being_repeated() -> None:
    assert refused_at(a_list(a_build(), a_config_map(data={TOKEN: "x"}))) == (
        "template.items[1].data"
    )


@pytest.mark.parametrize(
    "spec",
    [
        {"env": [{"name": "NPM_TOKEN", "value": "none"}, {"name": "TOKEN", "value": "test"}]},
        {"env": [{"name": "TOKEN", "value": "$(params.token)"}, {"name": "SECRET", "value": ""}]},
        {"env": [{"name": "SECRET", "value": "prod-db-2"}, {"name": "AUTH", "value": "oidc.v1"}]},
        {"env": [{"name": "CACHE_KEY", "value": "q7Zk2Xw9Rt4V"}]},
        {"env": [{"name": "T", "valueFrom": {"secretKeyRef": {"name": "a", "key": "TOKEN"}}}]},
        {"paramValues": [{"name": "build-args", "values": [{"value": "TOKEN=${TOKEN}"}]}]},
        {"paramValues": [{"name": "t", "secretValue": {"name": "npm", "key": "NPM_TOKEN"}}]},
        {"env": [{"name": "BASE", "value": "registry.example/a:v1@sha256:" + "ab" * 32}]},
        {"env": [{"name": "COMMIT", "value": "9fceb02d0ae598e95dc970b74767f19372d61af8"}]},
    ],
)
def test_the_name_of_a_secret_a_reference_or_a_harmless_value_is_none(spec: Manifest) -> None:
    check_template("build", a_build(spec=spec))


def test_credentials_are_found_behind_many_members_too() -> None:
    """Members count neither as values nor twice, so nothing that is let in is left unseen."""
    many = {f"key-{number}": 0 for number in range(MAX_VALUES - 100)}
    with pytest.raises(InvalidWork) as refusal:
        check_template("build", a_build(spec={"many": many, "a": {"b": {"c": {"url": SECRET}}}}))

    assert "credentials" in refusal.value.problem


@pytest.mark.parametrize(
    "url",
    [
        "https://git.example/hello.git",
        "ssh://git@git.example/hello.git",
        "git@git.example:hello.git",
        "https://git.example/@scope/hello.git",
        "https://git.example:8080/a@b",
    ],
)
def test_an_account_or_a_digest_in_a_url_is_no_credential(url: str) -> None:
    check_template("build", a_build(spec=source(url)))


def test_a_template_may_be_as_large_as_is_allowed() -> None:
    empty = a_build(spec={"large": ""})
    check_template("build", a_build(spec={"large": "x" * (MAX_BYTES - len(json.dumps(empty)))}))


@pytest.mark.parametrize(
    "text", ["a." * 250_000, "a://" * 125_000, "@" * 500_000, "://@" * 125_000]
)
def test_to_look_for_credentials_takes_no_longer_for_a_text_made_for_it(text: str) -> None:
    """Measured in the processor's time; a pattern that goes back takes minutes."""
    began = process_time()
    check_template("build", a_build(spec={"text": text}))

    assert process_time() - began < 1


def test_a_secret_is_refused_with_what_to_do_instead() -> None:
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "push"}}

    with pytest.raises(InvalidWork, match="create it in the cluster"):
        check_template("build", a_list(a_build(), secret))


def test_a_work_type_that_does_not_exist_is_refused_with_those_that_do() -> None:
    with pytest.raises(InvalidWork, match="known types: build"):
        check_template("biuld", a_build())


def test_the_broker_does_not_judge_a_namespace_that_it_does_not_know() -> None:
    check_template("build", a_build(metadata={"namespace": "anywhere"}))


def test_a_key_that_is_no_string_is_refused() -> None:
    with pytest.raises(InvalidWork, match="not a string"):
        check_template("build", a_build(spec={"labels": {1: "x"}}))


def test_a_single_object_is_its_own_only_document() -> None:
    assert documents(a_build()) == [a_build()]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)
NEAR_TEMPLATES = st.fixed_dictionaries(
    {},
    optional={
        "apiVersion": st.sampled_from(["v1", "shipwright.io/v1beta1"]) | JSON,
        "kind": st.sampled_from(["Build", "BuildRun", "List", "ConfigMap"]) | JSON,
        "metadata": JSON,
        "spec": JSON
        | st.fixed_dictionaries(
            {"strategy": st.just({"name": "s"}) | JSON, "output": st.just({"image": "i"}) | JSON},
            optional={"source": JSON, "build": JSON},
        ),
        "items": JSON,
    },
)


@given(NEAR_TEMPLATES | st.lists(NEAR_TEMPLATES).map(lambda items: a_list(*items)))
def test_whatever_is_sent_it_is_accepted_or_refused_and_breaks_nothing(
    template: Manifest,
) -> None:
    with suppress(InvalidWork):
        check_template("build", template, namespace="brokkr-agent")


@pytest.mark.parametrize(
    ("objects", "kind", "place"),
    [
        ([a_build(), a_config_map(), a_config_map()], "ConfigMap", 2),
        ([a_config_map(), a_config_map(), a_build()], "ConfigMap", 1),
    ],
)
def test_two_objects_of_one_kind_and_name_are_refused(
    objects: list[Manifest], kind: str, place: int
) -> None:
    named = [{**each, "metadata": {"name": "same"}} for each in objects]

    with pytest.raises(InvalidWork, match=f"is a {kind} named 'same' already") as refused:
        check_template("build", a_list(*named))

    assert refused.value.field == f"template.items[{place}].metadata.name"


def test_objects_of_two_kinds_may_have_one_name() -> None:
    named = [{**each, "metadata": {"name": "same"}} for each in (a_build(), a_config_map())]

    check_template("build", a_list(*named))
