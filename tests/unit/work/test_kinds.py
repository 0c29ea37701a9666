"""Which kinds a configured work type may have."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brokkr.work.kinds import parse_kind


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("v1 ConfigMap", ("v1", "ConfigMap")),
        ("batch/v1 Job", ("batch/v1", "Job")),
        ("example.com/v1alpha2 Backup", ("example.com/v1alpha2", "Backup")),
        ("postgresql.example.com/v1 Cluster", ("postgresql.example.com/v1", "Cluster")),
    ],
)
def test_a_kind_is_its_api_version_and_its_name(text: str, kind: tuple[str, str]) -> None:
    assert parse_kind(text) == kind


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Job",
        "batch/v1",
        "Job batch/v1",
        "batch/v1  Job",
        "batch/v1 Job ",
        " batch/v1 Job",
        "batch/v1 Job v1",
        "batch/v1\tJob",
        "batch/v1 job",
        "batch/v1 *",
        "batch/* Job",
        "batch/one Job",
        "a/b/v1 Job",
        "-batch/v1 Job",
        "Batch/v1 Job",
        "batch/v1 Job\n",
        f"batch/v1 J{'o' * 63}",
    ],
)
def test_what_is_no_kind_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="as in 'batch/v1 Job'"):
        parse_kind(text)


@pytest.mark.parametrize(
    "text",
    [
        "v1 Secret",
        "v1 ServiceAccount",
        "v1 Namespace",
        "v1 Node",
        "v1 PersistentVolume",
        "v1 Binding",
        "v1 List",
        "example.com/v1 Secret",
        "rbac.authorization.k8s.io/v1 Role",
        "rbac.authorization.k8s.io/v1 ClusterRoleBinding",
        "admissionregistration.k8s.io/v1 ValidatingWebhookConfiguration",
        "apiextensions.k8s.io/v1 CustomResourceDefinition",
        "apiregistration.k8s.io/v1 APIService",
        "authentication.k8s.io/v1 TokenRequest",
        "certificates.k8s.io/v1 CertificateSigningRequest",
        "networking.k8s.io/v1 IngressClass",
        "storage.k8s.io/v1 StorageClass",
        "shipwright.io/v1beta1 ClusterBuildStrategy",
        "brokkr.io/v1alpha1 Work",
        "more.brokkr.io/v1 Anything",
    ],
)
def test_what_reaches_beyond_or_gives_rights_is_never_allowed(text: str) -> None:
    with pytest.raises(ValueError, match="is never allowed: "):
        parse_kind(text)


@given(st.text(max_size=80) | st.text(alphabet="v1 batch/Job", max_size=12))
def test_whatever_is_taken_is_taken_as_it_is_written(text: str) -> None:
    with suppress(ValueError):
        assert " ".join(parse_kind(text)) == text
