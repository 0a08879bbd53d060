"""The kernels every test of the head runs with."""

import pytest

from noiselaw.head.library import Library, find_library


@pytest.fixture(scope="session")
def library() -> Library:
    """The compiled CPU kernel."""
    found = find_library()
    if isinstance(found, str):
        pytest.skip(f"no compiled kernel: {found}")
    return found


@pytest.fixture(params=["torch", "native"])
def kernel(request: pytest.FixtureRequest) -> str:
    """Name of a kernel for CPU tensors."""
    if request.param == "native":
        request.getfixturevalue("library")
    return request.param
