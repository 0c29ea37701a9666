"""The image, built a second time and pushed."""

from collections.abc import AsyncIterator

import pytest

from brokkr import __version__
from brokkr.local.binaries import ensure_programs
from brokkr.local.registry import Registry, registry
from support.image import MadeImage, inspect, make_image

pytestmark = [pytest.mark.image, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
async def images(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Registry]:
    await ensure_programs(["docker-registry"], print)
    async with registry(tmp_path_factory.mktemp("registry")) as server:
        yield server


@pytest.fixture(scope="module")
def pushed_to(images: Registry) -> str:
    return f"{images.host}/brokkr:{__version__}"


@pytest.fixture(scope="module")
def pushed(pushed_to: str, tmp_path_factory: pytest.TempPathFactory) -> MadeImage:
    to = tmp_path_factory.mktemp("again") / "layout"
    return make_image(to, "--push", pushed_to, "--insecure")


def test_it_is_the_same_image_byte_by_byte(made: MadeImage, pushed: MadeImage) -> None:
    first, second = (inspect(f"oci:{each.layout}")["Layers"] for each in (made, pushed))

    assert second == first
    assert pushed.digest == made.digest


def test_the_registry_has_it_under_the_digest_that_is_printed(
    pushed: MadeImage, pushed_to: str
) -> None:
    assert inspect(f"docker://{pushed_to}")["Digest"] == pushed.digest
    assert f"pushed  {pushed_to}@{pushed.digest}" in pushed.printed
