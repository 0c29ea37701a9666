"""The names of images, as registries and container tools take them."""

from time import process_time

import pytest

from brokkr.work.images import problem_with_image

DIGEST = "sha256:" + "0123456789abcdef" * 4


@pytest.mark.parametrize(
    "name",
    [
        "app",
        "app:1.0",
        "team/app",
        "registry.example.com/app",
        "registry.example.com/team/app:1.0",
        "registry.example.com:5000/team/app",
        "localhost/app",
        "localhost:5000/app:latest",
        "127.0.0.1:5000/team/app:v1.2.3-rc.1_x",
        "[::1]:5000/app",
        "registry.example.com/a-b/c_d/e__f/g.h/i--j:UPPER_Tag",
        "REGISTRY.example.com/app",
        f"registry.example.com/app@{DIGEST}",
        f"registry.example.com/app:1.0@{DIGEST}",
        "registry.example.com/app:" + "t" * 128,
    ],
)
def test_the_name_of_an_image_is_accepted(name: str) -> None:
    assert problem_with_image(name) is None


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("", "must name an image"),
        (" registry.example.com/app", "without spaces"),
        ("registry.example.com/app\n", "without spaces"),
        ("https://registry.example.com/app", "without a scheme"),
        ("docker://registry.example.com/app", "without a scheme"),
        ("registry.example.com", "no repository"),
        ("registry.example.com:5000", "no repository"),
        ("localhost:5000", "no repository"),
        ("registry.example.com/", "no repository"),
        ("registry.example.com/:1.0", "no repository"),
        ("registry.example.com/Team/App", "write 'team/app'"),
        ("App", "write 'app'"),
        ("registry.example.com/app:", "has the tag ''"),
        ("registry.example.com/app:1:2", "has the repository 'app:1'"),
        ("registry.example.com/app:-1", "has the tag '-1'"),
        ("registry.example.com/app:" + "t" * 129, "1 to 128"),
        ("registry.example.com/app:$(TAG)", "has the tag"),
        ("registry.example.com/app@sha256:0123", "has the digest"),
        ("registry.example.com/app@1.0", "has the digest"),
        ("registry.example.com/a//b", "has the repository"),
        ("registry.example.com/-app", "has the repository"),
        ("registry.example.com/app-", "has the repository"),
        ("registry.example.com/a..b", "has the repository"),
        ("registry.example.com/ä", "has the repository"),
        ("registry.example.com:99999/app", "has the port"),
        ("registry.example.com:0/app", "has the port"),
        ("registry.example.com:http/app", "has the registry"),
        ("registry_.example.com/app", "has the registry"),
        ("registry.example.com/" + "a" * 250, "longer than 255"),
    ],
)
def test_what_is_wrong_with_it_is_told(name: str, told: str) -> None:
    assert told in (problem_with_image(name) or "nothing")


def test_an_image_that_is_yet_to_be_built_has_no_digest() -> None:
    assert "no digest" in (problem_with_image(f"r.example/a@{DIGEST}", with_digest=False) or "")
    assert problem_with_image("r.example/a:1", with_digest=False) is None


@pytest.mark.parametrize(
    "name", ["a-" * 100_000, "a/" * 100_000, "a" * 200_000 + ":", "." * 200_000]
)
def test_a_long_name_is_refused_in_no_time(name: str) -> None:
    begin = process_time()

    assert problem_with_image(name) is not None
    assert process_time() - begin < 0.2
