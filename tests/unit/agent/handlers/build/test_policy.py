"""What a policy lets through, and that nothing gets around it."""

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from brokkr.agent.handlers.build.policy import BuildPolicy, PolicyViolation, check_policy
from brokkr.work.model import Manifest
from support.templates import a_build, a_build_run, a_config_map, a_list

NOTHING = BuildPolicy(registries=(), git_hosts=(), strategies=(), service_accounts=(), secrets=())

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
LABEL = st.from_regex(r"[a-z0-9]{1,8}", fullmatch=True)
HOST = st.lists(LABEL, min_size=2, max_size=4).map(".".join)
PORT = st.integers(1, 65535)
PATH = st.text(st.sampled_from("abc/.:@?#%\\ "), max_size=12)


def image_of(value: Any) -> Manifest:
    return a_build(spec={"output": {"image": value}})


def repository_of(value: Any) -> Manifest:
    return a_build(spec={"source": {"type": "Git", "git": {"url": value}}})


def allows_image(value: Any, *patterns: str) -> bool:
    return check_policy(image_of(value), BuildPolicy(registries=patterns)) is None


def allows_repository(value: Any, *patterns: str) -> bool:
    return check_policy(repository_of(value), BuildPolicy(git_hosts=patterns)) is None


def allows_strategy(value: Any, *patterns: str) -> bool:
    template = a_build(spec={"strategy": value})
    return check_policy(template, BuildPolicy(strategies=patterns)) is None


def allows_service_account(value: Any, *patterns: str) -> bool:
    template = a_list(a_build(), a_build_run(spec={"serviceAccount": value}))
    return check_policy(template, BuildPolicy(service_accounts=patterns)) is None


def refused(template: Manifest, policy: BuildPolicy) -> PolicyViolation:
    found = check_policy(template, policy)
    assert found is not None
    return found


# -- what a list says


@given(JSON)
def test_without_lists_everything_is_allowed(anything: Any) -> None:
    template = a_list(a_build(spec={"strategy": anything, "secret": anything}), a_build_run())

    assert check_policy(template, BuildPolicy()) is None


def test_a_violation_names_the_setting_the_field_the_value_and_what_is_allowed() -> None:
    policy = BuildPolicy(registries=("registry.example.com/team-*", "docker.io"))
    template = a_list(a_build_run(), image_of("evil.example/x"))

    assert str(refused(template, policy)) == (
        "template.items[1].spec.output.image: 'evil.example/x' is not allowed by "
        "agent.policy.registries; allowed: registry.example.com/team-*, docker.io"
    )


def test_an_empty_list_allows_nothing() -> None:
    assert str(refused(a_build(), BuildPolicy(strategies=()))).endswith("allowed: nothing")


@pytest.mark.parametrize(
    ("image", "pattern"),
    [
        ("registry.example.com/app", "registry.example.com"),
        ("registry.example.com/app:1@sha256:" + "0" * 64, "registry.example.com"),
        ("registry.example.com:443/app", "registry.example.com"),
        ("registry.example.com/app", "registry.example.com:443"),
        ("REGISTRY.example.com/app", "Registry.Example.com"),
        ("registry.example.com./app", "registry.example.com"),
        ("registry.example.com:5000/app", "registry.example.com:5000"),
        ("registry.example.com:5000/app", "registry.example.com:*"),
        ("a.example.com/app", "*.example.com"),
        ("registry.example.com/team-a/app:v1", "registry.example.com/team-*"),
        ("registry.example.com/team-a", "registry.example.com/team-?"),
        ("localhost/app", "localhost"),
        ("127.0.0.1:5000/app", "127.0.0.1:5000"),
        ("[::1]:5000/app", "[::1]:5000"),
        ("hello", "docker.io"),
        ("hello:1.0", "docker.io/library/*"),
        ("somebody/hello", "docker.io/somebody/*"),
        ("docker.io/hello", "docker.io/library/hello"),
        ("index.docker.io/somebody/hello", "docker.io/somebody/hello"),
        ("anything.example/at/all", "*"),
    ],
)
def test_an_image_on_the_list_is_allowed(image: str, pattern: str) -> None:
    assert allows_image(image, "other.example", pattern)


@pytest.mark.parametrize(
    ("image", "pattern"),
    [
        ("evil.example/registry.example.com/app", "registry.example.com"),
        ("evil.example/registry.example.com/app", "*registry.example.com/*"),
        ("evil.example/a.example.com/team", "*.example.com/team"),
        ("registry.example.com.evil.example/app", "registry.example.com"),
        ("registry.example.com@evil.example/app", "registry.example.com"),
        ("registry.example.com:5000/app", "registry.example.com"),
        ("registry.example.com/app", "registry.example.com:5000"),
        ("registry.example.com/team-a/../other", "registry.example.com/team-*"),
        ("registry.example.com//team-a", "registry.example.com"),
        ("registry.example.com/other/team-a", "registry.example.com/team-*"),
        ("//registry.example.com/app", "registry.example.com"),
        ("docker://registry.example.com/app", "*"),
        ("oci:/registry.example.com", "*"),
        ("registry.example.com\\.evil.example/app", "*"),
        ("registry.example.com/app ", "*"),
        ("registry.example.com/app\n", "*"),
        ("registry.example.com../app", "*"),
        ("registry..example.com/app", "*"),
        ("registry.example.com:0/app", "*"),
        ("registry.example.com:99999/app", "*"),
        ("registry.example.com:/app", "*"),
        ("registry.exämple.com/app", "*"),
        ("\u212aube.example/app", "kube.example"),
        ("registry.example.com:5000", "registry.example.com:5000"),
        ("REGISTRY/app", "docker.io"),  # some read a host here, and others do not
        ("REGISTRY/app", "registry"),
        ("hello", "registry.example.com"),
        ("r/" + "a" * 3000, "*"),
        ("", "*"),
        (7, "*"),
        (True, "*"),
        ({"reference": "evil.example/x"}, "registry.example.com"),
        (["evil.example/x"], "registry.example.com"),
        ([["evil.example/x"]], "registry.example.com"),
    ],
)
def test_an_image_that_is_not_on_the_list_is_refused(image: Any, pattern: str) -> None:
    assert not allows_image(image, pattern)


@pytest.mark.parametrize(
    ("url", "pattern"),
    [
        ("https://git.example.com/a/b.git", "git.example.com"),
        ("HTTPS://GIT.example.com./a", "git.Example.com"),
        ("https://git.example.com:443/a", "git.example.com"),
        ("https://git.example.com", "git.example.com"),
        ("http://git.example.com:8080/a", "git.example.com:8080"),
        ("http://git.example.com/a", "git.example.com:80"),
        ("ssh://git@git.example.com/a", "git.example.com"),
        ("ssh://git@git.example.com:2222/a", "git.example.com:2222"),
        ("ssh://git.example.com/a", "*.example.com"),
        ("git@git.example.com:a/b.git", "git.example.com"),
        ("git.example.com:a/b.git", "git.example.com:22"),
        ("https://[::1]/a", "[::1]"),
    ],
)
def test_a_repository_on_the_list_is_allowed(url: str, pattern: str) -> None:
    assert allows_repository(url, "other.example", pattern)


@pytest.mark.parametrize(
    "url",
    [
        "https://good.example@evil.example/",
        "https://good.example:443@evil.example/",
        "https://evil.example/good.example",
        "https://good.example.evil.example/",
        "https://evil.example#good.example",
        "https://good.example#@evil.example/",
        "https://good.example?@evil.example/",
        "https://good.example\\@evil.example/",
        "https://good.example%2f@evil.example/",
        "https://good.example:8443/a",
        "https://good.example../a",
        "https:///good.example/a",
        "https:/good.example/a",
        "https:good.example/a",
        "//good.example/a",
        "/good.example/a",
        "good.example",
        "good.example/a",
        "ssh://good.example@evil.example/a",
        "ssh://good.example:x@evil.example/a",
        "ssh://-oProxyCommand=x@good.example/a",
        "good.example@evil.example:a",
        "-oProxyCommand=x@good.example:a",
        "git@good.example::a",
        "good.example://evil.example/a",
        "ext::good.example",
        "git://good.example/a",
        "file://good.example/a",
        "git+ssh://good.example/a",
        " https://good.example/a",
        "https://good.example/a b",
        "https://good.example/a\n",
        "https://good.example\t/a",
        "http\u017f://good.example/a",
        "https://good.example\u3002evil.example/a",
        "https://user@good.example/a",
        "https://good.example/" + "a" * 3000,
        "",
        5,
        {"url": "https://evil.example/"},
        ["https://evil.example/"],
    ],
)
def test_a_repository_that_is_not_on_the_list_is_refused(url: Any) -> None:
    assert not allows_repository(url, "good.example")


@pytest.mark.parametrize(
    ("strategy", "pattern", "allowed"),
    [
        ({"name": "buildah", "kind": "ClusterBuildStrategy"}, "buildah", True),
        ({"name": "buildah"}, "buildah", True),
        ({"name": "buildah"}, "BuildStrategy/buildah", True),
        ({"name": "buildah", "kind": None}, "BuildStrategy/*", True),
        ({"name": "buildah", "kind": "ClusterBuildStrategy"}, "Cluster*/build*", True),
        ({"name": "buildah", "kind": "BuildStrategy"}, "ClusterBuildStrategy/buildah", False),
        ({"name": "buildah"}, "ClusterBuildStrategy/buildah", False),
        ({"name": "ClusterBuildStrategy/buildah"}, "ClusterBuildStrategy/buildah", False),
        ({"name": "Buildah"}, "buildah", False),
        ({"name": "evil"}, "buildah", False),
        ({"name": ["buildah"]}, "buildah", False),
        ({"name": "buildah", "kind": 1}, "*", False),
        ({}, "*", False),
        ("buildah", "*", False),
        ([{"name": "buildah"}], "*", False),
    ],
)
def test_a_strategy_goes_by_its_name_or_by_kind_and_name(
    strategy: Any, pattern: str, allowed: bool
) -> None:
    assert allows_strategy(strategy, pattern) is allowed


@pytest.mark.parametrize(
    ("name", "pattern", "allowed"),
    [
        ("builder-sa", "builder-*", True),
        (".generate", ".generate", True),
        (".generate", "*", True),
        (".generate", "builder-*", False),
        ("brokkr-agent", "builder-*", False),
        ("builder-a/../b", "builder-*", False),
        ("", "builder-*", False),
        (True, "*", False),
        ({"name": "builder-sa"}, "*", False),
        (None, "builder-*", True),  # the agent fills in its own
    ],
)
def test_a_build_run_runs_as_a_service_account_of_the_list(
    name: Any, pattern: str, allowed: bool
) -> None:
    assert allows_service_account(name, pattern) is allowed


# -- every place where something can be named

SECRET_PLACES: list[dict[str, Any]] = [
    {"output": {"image": "r.example/x", "pushSecret": "mine"}},
    {"source": {"type": "Git", "git": {"url": "https://g.example/x", "cloneSecret": "mine"}}},
    {"source": {"type": "OCI", "ociArtifact": {"image": "r.example/x", "pullSecret": "mine"}}},
    {"paramValues": [{"name": "p", "secretValue": {"name": "mine", "key": "k"}}]},
    {"paramValues": [{"name": "p", "values": [{"secretValue": {"name": "mine", "key": "k"}}]}]},
    {"env": [{"name": "E", "valueFrom": {"secretKeyRef": {"name": "mine", "key": "k"}}}]},
    {"volumes": [{"name": "v", "secret": {"secretName": "mine"}}]},
    {"volumes": [{"name": "v", "projected": {"sources": [{"secret": {"name": "mine"}}]}}]},
    {"volumes": [{"name": "v", "csi": {"nodePublishSecretRef": {"name": "mine"}}}]},
    {"volumes": [{"name": "v", "csi": {"volumeAttributes": {"secretProviderClass": "mine"}}}]},
    {"volumes": [{"name": "v", "azureFile": {"secretName": "mine"}}]},
    {"volumes": [{"name": "v", "rbd": {"secretRef": {"name": "mine"}}}]},
    {"trigger": {"triggerSecret": "mine"}},
    {"imagePullSecrets": [{"name": "mine"}]},
    {"someday": [{"deeply": {"SecretsOfAnyKind": ["mine"]}}]},
]


@pytest.mark.parametrize("spec", SECRET_PLACES)
@pytest.mark.parametrize("of_run", [False, True])
def test_a_secret_is_found_wherever_it_is_named(spec: dict[str, Any], of_run: bool) -> None:
    template = a_list(a_build(), a_build_run(spec=spec)) if of_run else a_build(spec=spec)

    violation = refused(template, BuildPolicy(secrets=("yours", "min")))

    assert (violation.rule, violation.value) == ("agent.policy.secrets", "'mine'")
    assert check_policy(template, BuildPolicy(secrets=("mi*",))) is None


OTHER_PLACES: list[tuple[str, dict[str, Any]]] = [
    ("registries", {"output": {"image": "r.example/x"}}),
    ("registries", {"source": {"type": "OCI", "ociArtifact": {"image": "r.example/x"}}}),
    ("registries", {"volumes": [{"name": "v", "image": {"reference": "r.example/x"}}]}),
    ("registries", {"trigger": {"when": [{"image": {"names": ["r.example/x"]}}]}}),
    ("git_hosts", {"source": {"type": "Git", "git": {"url": "https://g.example/x"}}}),
    ("git_hosts", {"volumes": [{"name": "v", "gitRepo": {"repository": "https://g.example/x"}}]}),
    ("strategies", {"strategy": {"name": "x"}}),
    ("strategies", {"build": {"spec": {"strategy": {"name": "x"}}}}),
    ("service_accounts", {"serviceAccount": "x"}),
    ("service_accounts", {"serviceAccount": ".generate"}),
    ("service_accounts", {"podTemplate": {"serviceAccountName": "x"}}),
]


@pytest.mark.parametrize(("rule", "spec"), OTHER_PLACES)
def test_everything_else_is_found_wherever_it_is_named(rule: str, spec: dict[str, Any]) -> None:
    build = {**a_build(), "spec": {}}
    policy = BuildPolicy(**{rule: ()})

    assert check_policy(build, policy) is None
    assert refused(a_list(build, a_build_run(spec=spec)), policy).rule == f"agent.policy.{rule}"
    assert refused({**build, "spec": spec}, policy).rule == f"agent.policy.{rule}"


def test_the_users_own_words_name_nothing() -> None:
    build = {
        **a_build(metadata={"name": "hello", "labels": {"secretName": "x", "image": "x"}}),
        "spec": {
            "nodeSelector": {"secret-room": "yes"},
            "output": {"labels": {"url": "https://x.example"}, "annotations": {"image": "x"}},
            "env": [{"name": "SECRET", "value": "image"}],
            "paramValues": [{"name": "secret", "value": "x"}],
        },
    }

    assert check_policy(a_list(build, a_config_map(data={"secret": "x"})), NOTHING) is None


@pytest.mark.parametrize("nothing", [{}, {"output": {"pushSecret": None}}, {"strategy": None}])
def test_what_is_not_given_is_not_refused(nothing: dict[str, Any]) -> None:
    assert check_policy({**a_build(), "spec": nothing}, NOTHING) is None


# -- nothing gets around it


@given(
    host=HOST, port=st.none() | PORT, path=PATH, scheme=st.sampled_from(["http", "https", "ssh"])
)
def test_no_other_host_passes_for_a_repository(
    host: str, port: int | None, path: str, scheme: str
) -> None:
    where = host if port is None else f"{host}:{port}"
    for user in ("", "git@", "good.example@", "good.example:22@"):
        assert not allows_repository(f"{scheme}://{user}{where}/{path}", "good.example")
    for user in ("", "git@", "good.example@"):
        assert not allows_repository(f"{user}{host}:{path}", "good.example")


@given(host=HOST, port=st.none() | PORT, path=st.lists(LABEL, min_size=1).map("/".join))
def test_an_image_passes_if_and_only_if_its_host_is_on_the_list(
    host: str, port: int | None, path: str
) -> None:
    where = host if port is None else f"{host}:{port}"

    assert not allows_image(f"{where}/{path}", "good.example", f"{host}.example", f"x{host}")
    assert allows_image(f"{where}/{path}", "good.example", where)


@given(text=st.text(st.sampled_from("goodevil.exampl:/@\\-_#?[]") | st.characters(), max_size=40))
@example("good.example@evil.example/x")
def test_what_passes_begins_with_a_host_of_the_list(text: str) -> None:
    if allows_image(text, "good.example"):
        assert text.lower().startswith(("good.example/", "good.example./", "good.example:443/"))
    if allows_repository(text, "good.example"):
        rest = text.lower().split("://", 1)[-1]
        assert rest.split("@", 1)[-1].startswith("good.example") or rest.startswith("good.example")


@given(value=JSON)
def test_no_nonsense_passes_a_list_and_none_stops_the_check(value: Any) -> None:
    for key in ("secret", "image", "url", "strategy", "serviceAccount"):
        found = check_policy({**a_build(), "spec": {key: value}}, NOTHING)

        if isinstance(value, str | int):
            assert found is not None


@given(name=st.text(max_size=20), pattern=st.text(st.sampled_from("ab*?[]!-"), max_size=8))
def test_brackets_in_a_pattern_mean_themselves(name: str, pattern: str) -> None:
    if "[" in pattern:
        assert not allows_service_account(name, pattern)


@pytest.mark.timeout(20)
def test_a_pattern_full_of_stars_takes_no_time() -> None:
    assert not allows_image("r.example/" + "a" * 2000, "r.example/" + "a*" * 140 + "b")
    assert not allows_image("r.example/" + "a-" * 1000, "r.example")
    assert not allows_repository("https://" + "a." * 1000, "a*" * 140 + "b")
