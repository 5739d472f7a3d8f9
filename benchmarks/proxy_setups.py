"""The proxies: which ones are measured beside the router, how each is set up, and how it is asked.

Every one balances over the same nodes, keeps its connections to them, writes no access log, and has one worker.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, Protocol
from urllib.parse import urlsplit

import msgspec

from benchmarks.bundles import Body
from benchmarks.canned_nodes import MODEL, name_of
from foothill import toml
from foothill.demo.places import GeoDatabaseError, database_path

_ROOT = Path(__file__).resolve().parents[1]
_COMPILED = _ROOT / ".compiled"
_SBIN = "/usr/sbin"
"""Where Debian has servers, which is not on everybody's PATH."""
_MOST_BYTES = 16 << 20
_LONG_S = 3600
_MANY = 1_000_000_000


class Site(NamedTuple):
    """Where a proxy is set up: a folder of its own, ports that are free, the first to listen at, and the nodes."""

    folder: Path
    ports: Sequence[int]
    nodes: Sequence[str]

    @property
    def port(self) -> int:
        return self.ports[0]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def addresses(self) -> list[str]:
        """The nodes as HOST:PORT."""
        return [urlsplit(node).netloc for node in self.nodes]

    def file(self, name: str, content: str | bytes) -> str:
        path = self.folder / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return str(path)


class Program(Protocol):
    """`missing` says why it cannot be run; empty when it can."""

    @property
    def path(self) -> str: ...

    @property
    def missing(self) -> str: ...


class Own(NamedTuple):
    """Modules of this repository, in its own environment."""

    @property
    def path(self) -> str:
        return sys.executable

    @property
    def missing(self) -> str:
        return ""


class Compiled(NamedTuple):
    """The same, with the hot path compiled, as `make wheel` has unpacked it."""

    @property
    def path(self) -> str:
        return sys.executable

    @property
    def missing(self) -> str:
        if not hasattr(sys.flags, "safe_path"):
            return "not run: before Python 3.11 sources in the working directory come first"
        return "" if (_COMPILED / ".installed").exists() else "not run: make wheel compiles it"


class Debian(NamedTuple):
    """A program of one of Debian's packages."""

    name: str
    package: str

    @property
    def path(self) -> str:
        return shutil.which(self.name, path=f"{os.environ.get('PATH', '')}:{_SBIN}") or ""

    @property
    def missing(self) -> str:
        return "" if self.path else f"not run: {self.name} is not installed, apt-get install {self.package}"


class Packaged(NamedTuple):
    """A program out of an environment that `make bench-proxies` has made and marked."""

    environment: Path
    name: str

    @property
    def path(self) -> str:
        return str(self.environment / "bin" / self.name)

    @property
    def missing(self) -> str:
        if (self.environment / ".installed").exists():
            return ""
        return f"not run: {self.environment.name} is missing or incomplete, make bench-proxies makes it"


Command = Callable[[str, Site], Sequence[str]]
"""Writes the proxy's files and returns what runs it until it is told to end, without a daemon; given its program."""
Ask = Callable[[int], Body]
"""The request whose body has so many bytes."""


class Proxy(NamedTuple):
    name: str
    program: Program
    command: Command
    ask: Ask

    @property
    def missing(self) -> str:
        return self.program.missing


def ask_predict(size: int) -> Body:
    """A picture, as far as anybody knows who does not look at it."""
    return Body(f"/v1/predict/{MODEL}", {"Content-Type": "image/jpeg"}, bytes(size))


def _ask_generate(size: int) -> Body:
    """JSON with one long text: this router reads what it passes on."""
    around = msgspec.json.encode({"text": ""})
    content = msgspec.json.encode({"text": "x" * (size - len(around))})
    return Body("/generate", {"Content-Type": "application/json"}, content)


def _router(program: str, site: Site) -> list[str]:
    """Static nodes, no broker and no cloud, a GeoIP database where there is one; all else is the default."""
    places = {"region": "eu-west", "lat": 53.35, "lon": -6.26, "models": [MODEL]}
    config: dict[str, Any] = {
        "port": site.port,
        "workers": 1,
        "broker_url": "",
        "cloud_urls": [],
        "hop_key_file": site.file("hop.key", "11" * 32),
        "nodes": [{"name": name_of(number), "url": url, **places} for number, url in enumerate(site.nodes)],
        "place": {"lat": 50.11, "lon": 8.68},
        "trusted_proxies": ["127.0.0.1/32"],
        "max_body_bytes": _MOST_BYTES,
    }
    with suppress(GeoDatabaseError):
        config["geoip_database"] = str(database_path())
    path = site.file("router.toml", toml.dumps(config))
    return [program, "-m", "benchmarks.router_process", path, str(site.folder / "router.url")]


def _bare(program: str, site: Site) -> list[str]:
    """It knows one node only."""
    ready = str(site.folder / "bare.url")
    return [program, "-m", "benchmarks.bare_proxy", site.nodes[0], ready, str(site.port)]


def _nginx(program: str, site: Site) -> list[str]:
    """Requests are buffered whole, as is its default, but in memory: to stream large ones costs 32 callers more."""
    servers = "".join(f"    server {address};\n" for address in site.addresses)
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    folders = "".join(f"  {kind}_temp_path {site.folder}/{kind};\n" for kind in kinds)
    # The workers of a root's nginx become another user, who cannot reach the folder.
    user = "user root;\n" if os.geteuid() == 0 else ""
    path = site.file(
        "nginx.conf",
        f"""{user}daemon off;
worker_processes 1;
pid {site.folder}/nginx.pid;
error_log stderr;
events {{
  worker_connections 4096;
}}
http {{
  access_log off;
{folders}  keepalive_requests {_MANY};
  keepalive_timeout {_LONG_S}s;
  client_max_body_size {_MOST_BYTES};
  client_body_buffer_size 1m;
  upstream nodes {{
{servers}    keepalive 512;
    keepalive_requests {_MANY};
    keepalive_timeout {_LONG_S}s;
  }}
  server {{
    listen 127.0.0.1:{site.port} backlog=1024;
    location / {{
      proxy_pass http://nodes;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
    }}
  }}
}}
""",
    )
    return [program, "-e", "stderr", "-p", str(site.folder), "-c", path]


def _haproxy(program: str, site: Site) -> list[str]:
    servers = "".join(f"  server node{number} {address}\n" for number, address in enumerate(site.addresses))
    path = site.file(
        "haproxy.cfg",
        f"""global
  nbthread 1
  maxconn 4096
defaults
  mode http
  timeout connect 5s
  timeout client {_LONG_S}s
  timeout server {_LONG_S}s
frontend callers
  bind 127.0.0.1:{site.port} backlog 1024
  default_backend nodes
backend nodes
  balance roundrobin
  http-reuse always
  default-server pool-purge-delay {_LONG_S}s
{servers}""",
    )
    return [program, "-db", "-f", path]


def _envoy(program: str, site: Site) -> list[str]:
    kinds = "type.googleapis.com/envoy.extensions.filters"
    manager = {
        "@type": f"{kinds}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "callers",
        "http_filters": [
            {"name": "envoy.filters.http.router", "typed_config": {"@type": f"{kinds}.http.router.v3.Router"}}
        ],
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "nodes", "timeout": "60s"}}],
                }
            ]
        },
    }
    chain = {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
    cluster = {
        "name": "nodes",
        "type": "STATIC",
        "lb_policy": "ROUND_ROBIN",
        "connect_timeout": "5s",
        "load_assignment": {
            "cluster_name": "nodes",
            "endpoints": [{"lb_endpoints": [{"endpoint": _envoy_address(node)} for node in site.addresses]}],
        },
    }
    listener = {"name": "callers", "filter_chains": [chain], **_envoy_address(f"127.0.0.1:{site.port}")}
    config = {"static_resources": {"listeners": [listener], "clusters": [cluster]}}
    path = site.file("envoy.json", msgspec.json.encode(config))
    return [program, "-c", path, "--concurrency", "1", "--disable-hot-restart", "--log-level", "error"]


def _envoy_address(address: str) -> Mapping[str, Any]:
    host, _, port = address.partition(":")
    return {"address": {"socket_address": {"address": host, "port_value": int(port)}}}


def _caddy(program: str, site: Site) -> list[str]:
    """Go takes as many threads at a time as it may run on cores."""
    relay = {
        "handler": "reverse_proxy",
        "transport": {"protocol": "http", "keep_alive": {"max_idle_conns_per_host": 512}},
        "load_balancing": {"selection_policy": {"policy": "round_robin"}},
        "upstreams": [{"dial": address} for address in site.addresses],
    }
    server = {
        "listen": [f"127.0.0.1:{site.port}"],
        "automatic_https": {"disable": True},
        "protocols": ["h1"],
        "routes": [{"handle": [relay]}],
    }
    config = {
        "admin": {"disabled": True, "config": {"persist": False}},
        "storage": {"module": "file_system", "root": str(site.folder)},
        "logging": {"logs": {"default": {"level": "ERROR"}}},
        "apps": {"http": {"servers": {"callers": server}}},
    }
    return [program, "run", "--config", site.file("caddy.json", msgspec.json.encode(config))]


def _sglang(program: str, site: Site) -> list[str]:
    """What looks after its workers is off: they do not fail here."""
    options = {
        "host": "127.0.0.1",
        "port": str(site.port),
        "prometheus-host": "127.0.0.1",
        "prometheus-port": str(site.ports[1]),
        "policy": "round_robin",
        "log-level": "error",
        "max-payload-size": str(_MOST_BYTES),
    }
    switched = ("--disable-health-check", "--disable-retries", "--disable-circuit-breaker")
    told = [word for name, value in options.items() for word in (f"--{name}", value)]
    return [program, "-m", "sglang_router.launch_router", *told, *switched, "--worker-urls", *site.nodes]


def _compiled_router(program: str, site: Site) -> list[str]:
    """Without the working directory in the path, in which the sources lie."""
    return ["env", "PYTHONSAFEPATH=1", f"PYTHONPATH={_COMPILED}:{_ROOT}", *_router(program, site)]


NGINX = "nginx"
ROUTER = Proxy("Foothill router", Own(), _router, ask_predict)
COMPILED = Proxy("Foothill router, compiled", Compiled(), _compiled_router, ask_predict)
BARE = Proxy("bare aiohttp proxy", Own(), _bare, ask_predict)
PROXIES = (
    ROUTER,
    COMPILED,
    Proxy(NGINX, Debian("nginx", "nginx-light"), _nginx, ask_predict),
    Proxy("HAProxy", Debian("haproxy", "haproxy"), _haproxy, ask_predict),
    Proxy("Envoy", Packaged(_ROOT / ".venv-peer-envoy", "envoy"), _envoy, ask_predict),
    Proxy("Caddy", Debian("caddy", "caddy"), _caddy, ask_predict),
    Proxy("sglang-router", Packaged(_ROOT / ".venv-peer-sglang", "python"), _sglang, _ask_generate),
    BARE,
)
