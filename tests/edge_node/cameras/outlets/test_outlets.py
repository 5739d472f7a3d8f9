"""What a node's configuration makes of its outlets."""

from __future__ import annotations

from pathlib import Path

import pytest

from contracts.camera_events import StateMessage
from edge_node.cameras.feed import Feed
from edge_node.cameras.outlets.home_assistant_config import HomeAssistantConfig
from edge_node.cameras.outlets.outlets import Outlets
from edge_node.cameras.outlets.webhook_config import WebhookConfig
from edge_node.cameras.scene.config import SceneConfig
from fleet.broker import Broker, BrokerConfig
from runtime.links.mqtt.port import MqttPort
from runtime.links.process.settings import SettingsError
from runtime.links.trust.tls import SYSTEM, TlsConfig
from tests.edge_node.cameras.outlets.test_mqtt import Reader

HOME = HomeAssistantConfig(on=True, prefix="home/assistant")


def outlets(
    directory: Path,
    feed: Feed,
    broker_url: str,
    *webhooks: WebhookConfig,
    home: HomeAssistantConfig = HOME,
    tls: TlsConfig = SYSTEM,
) -> Outlets:
    scenes = {"door": SceneConfig()}
    return Outlets(
        *("fra", feed, scenes.get),
        state_dir=directory,
        broker_url=broker_url,
        tls=tls,
        webhooks=webhooks,
        home_assistant=home,
    )


@pytest.mark.integration
@pytest.mark.parametrize("is_on", [True, False])
async def test_home_assistant_is_told_where_it_is_wished_for(tmp_path: Path, is_on: bool) -> None:
    broker = Broker(BrokerConfig(port=0, state_dir=str(tmp_path / "broker"), program="iotcore"))
    await broker.start()
    reader, heard = Reader(broker.url), list[str]()
    reader.port = MqttPort(broker.url, "reader")
    reader.port.subscribe("#", lambda topic, _: heard.append(topic))
    await reader.port.start()
    await reader.port.wait_connected(15)
    feed = Feed("fra", 1)
    made = outlets(tmp_path, feed, broker.url, home=HomeAssistantConfig(on=is_on, prefix="home/assistant"))
    await made.start()
    feed.say(StateMessage, "door", 1.0, state="live", since_at_s=1.0)
    await reader.until(lambda: "foothill/v1/cameras/fra/door/state" in heard)
    await made.stop()
    await reader.until(lambda: heard.count("foothill/v1/cameras/fra/status") >= 2)
    assert ("home/assistant/device/foothill_fra_door/config" in heard) is is_on
    assert made.lost() == {"mqtt": 0}
    await reader.port.stop()
    await broker.stop()


async def test_home_assistant_without_a_broker_is_told_of_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = outlets(tmp_path, Feed("fra", 1), "", WebhookConfig("https://a/"), WebhookConfig("https://b/"))
    assert "set broker_url" in caplog.text
    assert made.lost() == {"webhook": 0}
    await made.stop()


async def test_what_cannot_be_reached_by_any_means_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="broker_url"):
        outlets(tmp_path, Feed("fra", 1), "http://nowhere")
    with pytest.raises(SettingsError, match="ca_file"):
        outlets(tmp_path, Feed("fra", 1), "mqtts://127.0.0.1:1", tls=TlsConfig(ca_file="/nowhere"))
