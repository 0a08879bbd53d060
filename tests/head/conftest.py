"""The kernels every test of the head runs with."""

import os

import pytest

from noiselaw.head.library import Library, find_library


@pytest.fixture(scope="session")
def library() -> Library:
    """The compiled CPU kernel."""
    found = find_library()
    if isinstance(found, str):
        message = f"no compiled kernel: {found}"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return found


@pytest.fixture(params=["torch", "native"])
def kernel(request: pytest.FixtureRequest) -> str:
    """Name of a kernel for CPU tensors."""
    if request.param == "native":
        request.getfixturevalue("library")
    return request.param
