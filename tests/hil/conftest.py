"""One site for the tests of a file."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.hil.site import Site


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    site = Site(tmp_path_factory.mktemp("site"))
    try:
        yield site.start()
    finally:
        site.stop()
