"""Both clients against real sockets: leases, falling back, deadlines, errors. Each test runs once with either."""

from __future__ import annotations

import asyncio
import pickle
import socket
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeVar

import msgspec
import numpy as np
import pytest
from aiohttp import web

from contracts import headers
from contracts.errors import FoothillError
from contracts.leases import Lease, RouteRequest
from contracts.oip import HEADER_LENGTH, BinarySize, InferResponse, OutputTensor, frame, parse_request
from contracts.places import Place
from foothill import AsyncClient, Client, Inferred, Predicted, RequestError
from tests.foothill.scripted import Handler, Scripted, cuts, hangs, leases, predicts, refuses

T = TypeVar("T")
Serve = Callable[[Handler], Scripted]
JPEG = b"\xff\xd8\xff\xe0 a picture"


class Blocking:
    """An AsyncClient that is driven to its end call by call."""

    def __init__(self, client: AsyncClient, loop: asyncio.AbstractEventLoop) -> None:
        self.client = client
        self._loop = loop

    def predict(self, *args: Any, **kwargs: Any) -> Predicted:
        return self._run(self.client.predict(*args, **kwargs))

    def infer(self, *args: Any, **kwargs: Any) -> Inferred:
        return self._run(self.client.infer(*args, **kwargs))

    def lease(self, *args: Any, **kwargs: Any) -> Lease:
        return self._run(self.client.lease(*args, **kwargs))

    def settle(self) -> None:
        """Lets background renewals end."""
        self._run(self._settle())

    def close(self) -> None:
        self._run(self.client.close())

    async def _settle(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.gather(*others)

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self._loop.run_until_complete(coroutine)


class Threaded(Client):
    def settle(self) -> None:
        """A blocking client does nothing behind its calls."""


Connect = Callable[..., Any]


@pytest.fixture(params=["sync", "async"])
def connect(request: pytest.FixtureRequest) -> Iterator[Connect]:
    loop = asyncio.new_event_loop()
    made: list[Any] = []

    def make(url: str, **options: Any) -> Any:
        options.setdefault("trust_env", False)
        client = Threaded(url, **options) if request.param == "sync" else Blocking(AsyncClient(url, **options), loop)
        made.append(client)
        return client

    yield make
    for client in made:
        client.close()
    loop.close()


def nobody() -> str:
    """A URL where nothing listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{taken.getsockname()[1]}"


def test_the_router_is_asked_once_and_the_node_then_directly(serve: Serve, connect: Connect) -> None:
    node = serve(predicts())
    router = serve(leases(node.url))
    client = connect(router.url, headers={"X-Forwarded-For": "203.0.113.9"}, place=Place(50.0, 8.0))
    for _ in range(3):
        answer = client.predict("digits", JPEG)
    assert len(router.seen) == 1
    assert [path for path, _, _ in node.seen] == ["/v1/predict/digits"] * 3
    assert len(node.connections) == 1
    question = msgspec.json.decode(router.seen[0][2])
    assert question == {"model": "digits", "place": {"lat": 50.0, "lon": 8.0}}
    assert router.seen[0][1]["X-Forwarded-For"] == "203.0.113.9"
    sent = node.seen[-1][1]
    assert sent["Content-Type"] == "image/jpeg"
    assert sent["X-Forwarded-For"] == "203.0.113.9"
    assert 9_000 < float(sent[headers.DEADLINE_MS]) <= 10_000
    assert answer.prediction.label == "7"
    assert (answer.tier, answer.node, answer.reason, answer.bundle) == ("edge", "fra", "confident", "digits-edge@1")
    assert answer.confidence == 0.9
    assert answer.certified
    assert not answer.degraded
    assert answer.request_id == sent[headers.REQUEST_ID]
    assert answer.timings_ms["infer"] == 1.5
    assert answer.timings_ms["network"] >= 0
    assert "total" not in answer.timings_ms
    assert answer.total_ms > 0


def test_the_next_lease_is_asked_for_with_the_round_trips_that_were_measured(serve: Serve, connect: Connect) -> None:
    node, other, cloud = serve(predicts()), serve(predicts()), serve(predicts("cloud", "cloud"))
    router = serve(leases(node.url, other.url, cloud=cloud.url))
    client = connect(router.url)
    for _ in range(3):
        client.predict("digits", JPEG)
    client.lease("faces")
    client.lease("cats")
    first, second, third = (msgspec.json.decode(body, type=RouteRequest) for _, _, body in router.seen)
    assert (first.measured_ms, third.measured_ms) == ({}, {})
    assert list(second.measured_ms) == ["n0"]
    assert 0 <= second.measured_ms["n0"] < 1000


def test_round_trips_that_the_router_never_heard_of_are_kept_for_it(serve: Serve, connect: Connect) -> None:
    node = serve(predicts())
    router = serve(leases(node.url, ttl_s=0.3))
    client = connect(router.url)
    for _ in range(2):
        client.predict("digits", JPEG)
    router.handler = refuses("unavailable")
    time.sleep(0.31)
    client.predict("digits", JPEG)
    router.handler = leases(node.url)
    client.lease("faces")
    kept = msgspec.json.decode(router.seen[-1][2], type=RouteRequest)
    assert list(kept.measured_ms) == ["n0"]


def test_the_first_call_tells_what_asking_the_router_took(serve: Serve, connect: Connect) -> None:
    async def slowly(request: web.Request, body: bytes) -> web.StreamResponse:
        await asyncio.sleep(0.05)
        return await leases(node.url)(request, body)

    node = serve(predicts())
    client = connect(serve(slowly).url)
    assert client.predict("digits", JPEG).timings_ms["lease"] >= 50.0
    later = client.predict("digits", JPEG)
    assert not {"lease", "retry"} & set(later.timings_ms)


def test_tensors_travel_as_binary(serve: Serve, connect: Connect) -> None:
    async def doubles(request: web.Request, body: bytes) -> web.StreamResponse:
        asked, parts = parse_request(body, request.headers[HEADER_LENGTH])
        values = np.frombuffer(parts["image"], "<f4") * 2
        head = InferResponse("digits", "1", (OutputTensor("logits", "FP32", asked.inputs[0].shape, BinarySize(12)),))
        answer, length = frame(head, [values.tobytes()])
        sent = {HEADER_LENGTH: str(length), headers.TIER: "edge"}
        return web.Response(body=answer, headers=sent, content_type="application/octet-stream")

    node = serve(doubles)
    client = connect(serve(leases(node.url)).url)
    answer = client.infer("digits", {"image": np.array([[1, 2, 3]], np.float32)}, escalation="never")
    assert answer.outputs["logits"].values() == (2.0, 4.0, 6.0)
    assert answer.outputs["logits"].shape == (1, 3)
    assert answer.confidence is None
    assert node.seen[0][0] == "/v2/models/digits/infer"
    assert node.seen[0][1][headers.ESCALATION] == "never"


def test_a_node_that_is_gone_costs_no_answer_and_is_left_alone_for_a_while(serve: Serve, connect: Connect) -> None:
    second = serve(predicts(node="iad"))
    client = connect(serve(leases(nobody(), second.url)).url)
    first = client.predict("digits", JPEG)
    assert (first.node, first.attempts) == ("iad", 2)
    client.settle()
    assert client.predict("digits", JPEG).attempts == 1


@pytest.mark.parametrize(
    "broken", [refuses("overloaded"), refuses("upstream_failed"), refuses("model_not_found"), cuts]
)
def test_a_node_that_cannot_answer_is_passed_over(serve: Serve, connect: Connect, broken: Handler) -> None:
    first, second = serve(broken), serve(predicts(node="iad"))
    client = connect(serve(leases(first.url, second.url)).url)
    assert client.predict("digits", JPEG).node == "iad"
    ids = {sent[headers.REQUEST_ID] for _, sent, _ in (*first.seen, *second.seen)}
    assert len(ids) == 1


def test_a_node_that_never_answers_is_passed_over_within_the_deadline(serve: Serve, connect: Connect) -> None:
    second = serve(predicts(node="iad"))
    client = connect(serve(leases(serve(hangs).url, second.url)).url)
    answer = client.predict("digits", JPEG, deadline_ms=1500.0)
    assert answer.node == "iad"
    assert answer.timings_ms["retry"] >= 800
    assert answer.total_ms < 1500
    assert float(second.seen[0][1][headers.DEADLINE_MS]) < 700


def test_the_cloud_is_asked_only_when_no_node_can_be_reached(serve: Serve, connect: Connect) -> None:
    node, cloud = serve(predicts()), serve(predicts("cloud", "cloud"))
    client = connect(serve(leases(nobody(), node.url, cloud=cloud.url)).url)
    assert client.predict("digits", JPEG).tier == "edge"
    assert cloud.seen == []
    node.stop()
    assert client.predict("digits", JPEG).tier == "cloud"


def test_a_refusal_is_raised_at_once_with_the_fields_of_the_contract(serve: Serve, connect: Connect) -> None:
    node, cloud = serve(refuses("bad_image", "These bytes are no JPEG.")), serve(predicts("cloud"))
    client = connect(serve(leases(node.url, cloud=cloud.url)).url)
    with pytest.raises(RequestError) as caught:
        client.predict("digits", JPEG)
    error = caught.value
    assert isinstance(error, FoothillError)
    assert (error.code, error.status, error.source, error.retryable) == ("bad_image", 400, "fra", False)
    assert error.message == "These bytes are no JPEG."
    assert error.tried == (node.url,)
    assert error.request_id == node.seen[0][1][headers.REQUEST_ID]
    assert error.request_id in str(error)
    assert cloud.seen == []
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_a_rate_limit_says_when_to_come_back(serve: Serve, connect: Connect) -> None:
    client = connect(serve(leases(serve(refuses("rate_limited", retry_after="7")).url)).url)
    with pytest.raises(RequestError) as caught:
        client.predict("digits", JPEG)
    assert caught.value.retry_after_s == 7.0
    assert caught.value.retryable


def test_when_everything_fails_the_error_names_all_that_was_asked(serve: Serve, connect: Connect) -> None:
    node, cloud = serve(refuses("overloaded")), nobody()
    client = connect(serve(leases(node.url, cloud=cloud)).url)
    with pytest.raises(RequestError, match="no connection") as caught:
        client.predict("digits", JPEG)
    assert caught.value.tried == (node.url, cloud)
    assert caught.value.status == 0


def test_without_router_and_lease_the_error_says_what_to_check(connect: Connect) -> None:
    url = nobody()
    with pytest.raises(
        RequestError, match=r"gave no lease for model 'digits'.*no connection.*foothill router run"
    ) as caught:
        connect(url).predict("digits", JPEG)
    assert caught.value.source == "client"
    assert caught.value.retryable


def test_an_expired_lease_is_used_while_the_router_is_away(serve: Serve, connect: Connect) -> None:
    node = serve(predicts())
    router = serve(leases(node.url, ttl_s=0.01))
    client = connect(router.url)
    client.predict("digits", JPEG)
    router.stop()
    time.sleep(0.02)
    assert client.predict("digits", JPEG).tier == "edge"
    router.start()
    asked = len(router.seen)
    time.sleep(0.02)
    assert client.predict("digits", JPEG).tier == "edge"
    assert len(router.seen) == asked + 1


def test_a_due_lease_is_renewed(serve: Serve, connect: Connect) -> None:
    old, new = serve(predicts(node="old")), serve(predicts(node="new"))
    router = serve(leases(old.url, ttl_s=0.4))
    client = connect(router.url)
    client.lease("digits")
    router.handler = leases(new.url)
    time.sleep(0.33)
    client.predict("digits", JPEG)
    client.settle()
    assert client.predict("digits", JPEG).node == "new"
    assert len(router.seen) == 2


def test_a_router_that_refuses_the_model_is_believed(serve: Serve, connect: Connect) -> None:
    node = serve(predicts())
    router = serve(leases(node.url, ttl_s=0.01))
    client = connect(router.url)
    client.predict("digits", JPEG)
    router.handler = refuses("residency_denied")
    time.sleep(0.02)
    with pytest.raises(RequestError, match="residency_denied"):
        client.predict("digits", JPEG)


def test_a_residency_claim_gets_a_lease_of_its_own(serve: Serve, connect: Connect) -> None:
    node = serve(predicts())
    router = serve(leases(node.url))
    client = connect(router.url)
    client.predict("digits", JPEG, residency=["eu", "ch"])
    client.predict("digits", JPEG)
    assert [sent.get(headers.RESIDENCY) for _, sent, _ in router.seen] == ["eu,ch", None]
    assert node.seen[0][1][headers.RESIDENCY] == "eu,ch"


def test_what_a_node_has_to_have_gets_a_lease_of_its_own(serve: Serve, connect: Connect) -> None:
    node = serve(predicts())
    router = serve(leases(node.url))
    client = connect(router.url)
    client.predict("digits", JPEG, capabilities=["gpu", "hd"])
    client.predict("digits", JPEG, residency=["eu"], capabilities=["gpu"])
    client.lease("digits", capabilities=["gpu"])
    asked = [(sent.get(headers.RESIDENCY), sent.get(headers.CAPABILITIES)) for _, sent, _ in router.seen]
    assert asked == [(None, "gpu,hd"), ("eu", "gpu"), (None, "gpu")]
    assert node.seen[0][1][headers.CAPABILITIES] == "gpu,hd"
    with pytest.raises(TypeError, match=r"write capabilities=\['gpu'\]"):
        client.predict("digits", JPEG, capabilities="gpu")


def test_a_connection_closed_for_idleness_is_opened_again(serve: Serve, connect: Connect) -> None:
    async def once(request: web.Request, body: bytes) -> web.StreamResponse:
        # The server drops a kept connection exactly when the next request comes in on it.
        if len(node.seen) == 2:
            return await cuts(request, body)
        return await predicts()(request, body)

    node, other = serve(once), serve(predicts(node="other"))
    client = connect(serve(leases(node.url, other.url)).url)
    client.predict("digits", JPEG)
    answer = client.predict("digits", JPEG)
    assert (answer.node, answer.attempts) == ("fra", 2)


def test_without_leases_everything_goes_to_the_url_given(serve: Serve, connect: Connect) -> None:
    cloud = serve(predicts("cloud"))
    client = connect(cloud.url + "/", lease=False)
    assert client.predict("digits", JPEG).tier == "cloud"
    assert [path for path, _, _ in cloud.seen] == ["/v1/predict/digits"]
    with pytest.raises(LookupError, match="lease=False"):
        client.lease("digits")


def test_a_deadline_that_passes_is_an_error_of_its_own(serve: Serve, connect: Connect) -> None:
    client = connect(serve(hangs).url, lease=False, deadline_ms=200.0)
    with pytest.raises(RequestError) as caught:
        client.predict("digits", JPEG)
    assert (caught.value.code, caught.value.source) == ("deadline_exceeded", "client")


def test_connect_to_leads_elsewhere_and_keeps_the_host(serve: Serve, connect: Connect) -> None:
    node, router = serve(predicts()), serve(leases("http://edge.example:8100"))
    client = connect(
        "http://router.example",
        connect_to={"http://router.example:80": router.url, "http://edge.example:8100": node.url},
    )
    assert client.predict("digits", JPEG).tier == "edge"
    assert router.seen[0][1]["Host"] == "router.example"
    assert node.seen[0][1]["Host"] == "edge.example:8100"


def test_an_answer_of_somebody_else_is_quoted(serve: Serve, connect: Connect) -> None:
    async def proxy_error(request: web.Request, body: bytes) -> web.StreamResponse:
        return web.Response(status=404, text="<html>nothing here</html>")

    client = connect(serve(proxy_error).url)
    with pytest.raises(RequestError, match=r"HTTP 404 without Foothill's error body.*nothing here"):
        client.predict("digits", JPEG)


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b"no json",
        b'{"model":"digits","nodes":[{"node":"a","url":"x:1","region":"","rtt_ms":1}],"cloud":"","ttl_s":1}',
    ],
)
def test_a_lease_out_of_form_is_an_error_of_the_router(serve: Serve, connect: Connect, body: bytes) -> None:
    async def nonsense(request: web.Request, asked: bytes) -> web.StreamResponse:
        return web.Response(body=body, content_type="application/json")

    with pytest.raises(RequestError, match="answered no lease"):
        connect(serve(nonsense).url).predict("digits", JPEG)


def test_an_answer_out_of_form_is_never_an_empty_success(serve: Serve, connect: Connect) -> None:
    async def nothing(request: web.Request, body: bytes) -> web.StreamResponse:
        return web.Response(body=b"{}", content_type="application/json")

    client = connect(serve(nothing).url, lease=False)
    with pytest.raises(RequestError, match="cannot be read"):
        client.predict("digits", JPEG)


def test_an_empty_lease_says_so(serve: Serve, connect: Connect) -> None:
    with pytest.raises(RequestError, match="leased no node and no cloud"):
        connect(serve(leases()).url).predict("digits", JPEG)


def test_wrong_arguments_are_value_errors_before_anything_is_sent(connect: Connect) -> None:
    with pytest.raises(ValueError, match="base URL"):
        connect("router:8080")
    client = connect(nobody())
    with pytest.raises(ValueError, match="no JPEG and no PNG"):
        client.predict("digits", b"GIF89a")
    with pytest.raises(ValueError, match="not a model name"):
        client.predict("../metrics", JPEG)
    with pytest.raises(ValueError, match="takes 8 bytes"):
        client.infer("digits", {"image": ("FP32", [2], b"")})


async def test_concurrent_first_calls_ask_for_one_lease(serve: Serve) -> None:
    node = serve(predicts())
    router = serve(leases(node.url))
    async with AsyncClient(router.url, trust_env=False) as client:
        await asyncio.gather(*(client.predict("digits", JPEG) for _ in range(8)))
    assert len(router.seen) == 1


def test_threads_share_a_client(serve: Serve) -> None:
    node = serve(predicts())
    router = serve(leases(node.url))
    answers: list[Predicted] = []
    with Client(router.url, trust_env=False) as client:
        threads = [threading.Thread(target=lambda: answers.append(client.predict("digits", JPEG))) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(answers) == 8
    assert len(router.seen) == 1


async def test_a_cancelled_call_lets_go_of_its_connection(serve: Serve) -> None:
    began = threading.Event()

    async def slow(request: web.Request, body: bytes) -> web.StreamResponse:
        began.set()
        return await hangs(request, body)

    client = AsyncClient(serve(slow).url, lease=False, trust_env=False)
    call: asyncio.Task[Predicted] = asyncio.create_task(client.predict("digits", JPEG))
    await asyncio.to_thread(began.wait, 5)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await client.close()


def test_making_a_client_does_no_work(connect: Connect) -> None:
    before = time.process_time()
    for _ in range(100):
        connect("https://router.example")
    # Loading the certificate authorities takes 10-20 ms each time; a hundred clients must not pay for it.
    assert time.process_time() - before < 0.5


def test_retries_end_with_their_budget(serve: Serve, connect: Connect) -> None:
    node, cloud = serve(refuses("overloaded")), serve(refuses("overloaded"))
    client = connect(serve(leases(node.url, cloud=cloud.url)).url)
    for _ in range(150):
        with pytest.raises(RequestError, match="overloaded"):
            client.predict("digits", JPEG)
    # Each call may try twice; 150 retries within seconds are more than a floor of 100 in 10 s and a tenth of the calls.
    assert 150 < len(node.seen) + len(cloud.seen) < 150 + 130


def admits(*tickets: str) -> Handler:
    """A node that answers who brings one of `tickets`, and says of others that they are too old."""

    async def handler(request: web.Request, body: bytes) -> web.StreamResponse:
        if request.headers.get("Authorization") in {f"Bearer {ticket}" for ticket in tickets}:
            return await predicts()(request, body)
        return await refuses("ticket_expired")(request, body)

    return handler


def test_the_token_goes_to_the_router_and_the_leases_ticket_to_its_servers(serve: Serve, connect: Connect) -> None:
    node, cloud = serve(predicts()), serve(predicts(tier="cloud"))
    router = serve(leases(node.url, cloud=cloud.url, ticket="ft1.t"))
    client = connect(router.url, token="s3cret")
    client.predict("digits", JPEG)
    node.stop()
    client.predict("digits", JPEG)
    told = [server.seen[0][1]["Authorization"] for server in (router, node, cloud)]
    assert told == ["Bearer s3cret", "Bearer ft1.t", "Bearer ft1.t"]


def test_where_a_lease_has_no_ticket_and_without_leases_the_token_is_shown(serve: Serve, connect: Connect) -> None:
    node = serve(predicts())
    connect(serve(leases(node.url)).url, token="s3cret").predict("digits", JPEG)
    connect(node.url, token="s3cret", lease=False).predict("digits", JPEG)
    connect(node.url, lease=False).predict("digits", JPEG)
    assert [sent.get("Authorization") for _, sent, _ in node.seen] == ["Bearer s3cret", "Bearer s3cret", None]


def test_an_expired_ticket_is_renewed_within_the_call(serve: Serve, connect: Connect) -> None:
    node = serve(admits("one"))
    router = serve(leases(node.url, ticket="one"))
    client = connect(router.url, token="s3cret")
    client.predict("digits", JPEG)
    node.handler, router.handler = admits("two"), leases(node.url, ticket="two")
    assert client.predict("digits", JPEG).tier == "edge"
    assert client.predict("digits", JPEG).tier == "edge"
    assert [sent["Authorization"][7:] for _, sent, _ in node.seen] == ["one", "one", "two", "two"]
    assert len(router.seen) == 2


def test_a_ticket_that_is_refused_again_is_an_error(serve: Serve, connect: Connect) -> None:
    node = serve(admits())
    router = serve(leases(node.url, ticket="one"))
    client = connect(router.url)
    for ticket, seen in (("one", 1), ("two", 3)):
        router.handler = leases(node.url, ticket=ticket)
        with pytest.raises(RequestError) as raised:
            client.predict("digits", JPEG)
        assert (raised.value.code, raised.value.status) == ("ticket_expired", 401)
        assert len(node.seen) == seen
    router.stop()
    with pytest.raises(RequestError, match="ticket_expired"):
        client.predict("digits", JPEG)


def test_a_used_up_ticket_takes_a_new_lease_for_the_next_call(serve: Serve, connect: Connect) -> None:
    node = serve(refuses("rate_limited", retry_after="1"))
    router = serve(leases(node.url, ticket="one"))
    client = connect(router.url)
    with pytest.raises(RequestError, match="rate_limited"):
        client.predict("digits", JPEG)
    node.handler, router.handler = predicts(), leases(node.url, ticket="two")
    client.predict("digits", JPEG)
    client.settle()
    assert len(router.seen) == 2


@pytest.mark.parametrize("token", ["a b", "a\n", "\u00e9"])
def test_a_token_that_cannot_stand_in_a_header_is_refused_at_once(connect: Connect, token: str) -> None:
    with pytest.raises(ValueError, match="token"):
        connect(nobody(), token=token)
