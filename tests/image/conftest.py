"""The image of this checkout, built once and once more."""

from collections.abc import Iterator

import pytest

from support.image import MadeImage, UnpackedImage, make_image, unpacked


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> MadeImage:
    """The image, as an OCI layout."""
    return make_image(tmp_path_factory.mktemp("image") / "layout")


@pytest.fixture(scope="session")
def image(made: MadeImage, tmp_path_factory: pytest.TempPathFactory) -> Iterator[UnpackedImage]:
    """The same image, unpacked."""
    with unpacked(made.layout, tmp_path_factory.mktemp("unpacked")) as image:
        yield image
