"""A process that answers desired documents: `python -m benchmarks.follower BROKER_URL PUBLIC_KEY READY_FILE`.

What a node does between the two messages is left out, but for the signature: it is checked as a node checks it. The
same process echoes what comes on ECHO_OUT to ECHO_BACK through paho-mqtt alone, payload and quality of service alike.
"""

from __future__ import annotations

import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from paho.mqtt.client import Client, MQTTMessage, MQTTv5
from paho.mqtt.enums import CallbackAPIVersion

from benchmarks.told import tell_ready
from contracts import topics
from contracts.boards import Fingerprint
from contracts.messages import Desired, Reported, Signed, decode, encode
from runtime.links.http.serve import run_loop, stop_on_signals
from runtime.links.mqtt.port import MqttPort
from runtime.links.trust import signatures

OnMessage = Callable[[Client, Any, MQTTMessage], None]

ECHO_OUT, ECHO_BACK = "bench/out", "bench/back"
"""Each with a level more for the number of the message under way."""

_SUBSCRIBED_WITHIN_S = 10.0
_MACHINE = Fingerprint("cpu-x86", "x86_64", "linux", 2, 4 << 30, "CPUExecutionProvider", "onnxruntime")


async def run(broker_url: str, public_key: str, ready: str) -> None:
    stopping = stop_on_signals()
    keys = {signatures.key_id(public_key): public_key}
    port = MqttPort(broker_url, "bench-nodes")

    def on_desired(topic: str, payload: bytes) -> None:
        desired = signatures.verify(decode(payload, Signed), keys, Desired)
        reported = Reported(desired.node, 1, desired.sequence, {}, _MACHINE, time.time())
        port.publish(topics.node_topic(desired.node, "reported"), encode(reported), retain=True)

    port.subscribe(topics.every_node("desired"), on_desired)
    await port.start()
    echo = connect(broker_url, f"{ECHO_OUT}/+", _echo)
    try:
        await port.wait_connected(10.0)
        tell_ready(ready, broker_url)
        await stopping.wait()
    finally:
        echo.disconnect()
        echo.loop_stop()
        await port.stop()


def connect(broker_url: str, topic_filter: str, on_message: OnMessage) -> Client:
    """A paho client with a thread of its own, subscribed at QoS 1 when this returns. Raises TimeoutError.

    Without TCP_NODELAY, which paho leaves off, its round trips would be those of delayed acknowledgements: 44 ms.
    """
    parts, subscribed = urlsplit(broker_url), threading.Event()
    client = Client(CallbackAPIVersion.VERSION2, protocol=MQTTv5)
    client.on_message = on_message
    client.on_subscribe = lambda *_: subscribed.set()
    client.connect(parts.hostname or "", parts.port or 1883)
    connected = client.socket()
    if isinstance(connected, socket.socket):
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    client.loop_start()
    client.subscribe(topic_filter, qos=1)
    if not subscribed.wait(_SUBSCRIBED_WITHIN_S):
        raise TimeoutError(f"{broker_url} did not answer a subscription within {_SUBSCRIBED_WITHIN_S:g} s.")
    return client


def _echo(client: Client, _: object, message: MQTTMessage) -> None:
    client.publish(message.topic.replace(ECHO_OUT, ECHO_BACK), message.payload, qos=1, retain=True)


if __name__ == "__main__":
    run_loop(run(*sys.argv[1:4]))
