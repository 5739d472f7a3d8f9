"""Connecting to another origin than the URL names."""

from __future__ import annotations

import pytest

from foothill.client.origins import normalise, origin, route


def test_origins_have_their_port_written_out() -> None:
    assert origin("http://Node.example/x") == "http://node.example:80"
    assert origin("https://node") == "https://node:443"
    assert origin("http://[::1]:8100/") == "http://[::1]:8100"


@pytest.mark.parametrize("url", ["node:8100", "ftp://node", "http://", "", "/v1", "http://node:port"])
def test_what_is_no_base_url_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"base URL|Port|port"):
        origin(url)


def test_a_mapped_origin_keeps_the_host_and_name_of_the_first() -> None:
    mapped = normalise({"https://node.example": "https://127.0.0.1:9000/"})
    way = route("https://node.example/base/", mapped)
    assert way.url == "https://127.0.0.1:9000/base"
    assert way.host == "node.example"
    assert way.server_name == "node.example"


def test_other_origins_go_where_they_say() -> None:
    way = route("http://127.0.0.1:8100", {"http://127.0.0.1:8101": "http://127.0.0.1:9000"})
    assert way.url == "http://127.0.0.1:8100"
    assert way.host == "127.0.0.1:8100"
