"""All outlets of a node that need no caller: MQTT, with Home Assistant where that is wished for, and webhooks."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from edge_node.cameras.feed import Feed
from edge_node.cameras.outlets.backlog import Backlog
from edge_node.cameras.outlets.home_assistant import HomeAssistant, SceneOf
from edge_node.cameras.outlets.home_assistant_config import HomeAssistantConfig
from edge_node.cameras.outlets.journal import Journal
from edge_node.cameras.outlets.journal_file import remove
from edge_node.cameras.outlets.mqtt import EVENTS_WAITING, EVENTS_WAITING_BYTES, MqttOutlet, last_will
from edge_node.cameras.outlets.webhook import Webhook
from edge_node.cameras.outlets.webhook_config import WebhookConfig
from runtime.links.mqtt.port import MqttPort
from runtime.links.process.settings import SettingsError
from runtime.links.trust.tls import TlsConfig, checked

log = logging.getLogger(__name__)

DIRECTORY = "outlets"
"""Below the state directory: what waits to be told."""
_LONGEST_PAUSE_S = 1.5


class Waiting(NamedTuple):
    """Messages on the disk, and in memory alone: what the end of the process costs."""

    disk: int
    memory: int


class Outlets:
    """`broker_url` "" says nothing on MQTT. Raises SettingsError for files of `tls` that cannot be used."""

    def __init__(
        self,
        node: str,
        feed: Feed,
        scene_of: SceneOf,
        *,
        state_dir: Path,
        broker_url: str,
        tls: TlsConfig,
        webhooks: tuple[WebhookConfig, ...],
        home_assistant: HomeAssistantConfig,
    ) -> None:
        self._mqtt: MqttOutlet | None = None
        self._home: HomeAssistant | None = None
        self._scene_of = scene_of
        self._directory = state_dir / DIRECTORY
        self._journals: dict[str, list[Journal]] = {}
        if broker_url:
            port = _open_port(broker_url, node, tls)
            self._journals["mqtt"] = [Journal(self._directory / "mqtt.db")]
            self._mqtt = MqttOutlet(node, feed, port, *self._journals["mqtt"])
            if home_assistant.on:
                self._home = HomeAssistant(node, feed, port, scene_of, home_assistant.prefix)
        elif home_assistant.on:
            log.warning("home_assistant is on, and nothing is said on MQTT: set broker_url")
        self._files = files_of(webhooks)
        if webhooks:
            self._journals["webhook"] = [Journal(self._directory / file) for file in self._files]
        self._webhooks = [
            Webhook(webhook, feed, Backlog(journal), tls=tls)
            for webhook, journal in zip(webhooks, self._journals.get("webhook", ()), strict=True)
        ]

    def lost(self) -> dict[str, int]:
        """How many messages gave way, by outlet."""
        lost = {"mqtt": self._mqtt.dropped} if self._mqtt is not None else {}
        if self._webhooks:
            lost["webhook"] = sum(webhook.dropped for webhook in self._webhooks)
        return lost

    def waiting(self) -> dict[str, Waiting]:
        """How many messages wait, by outlet."""
        return {
            outlet: Waiting(sum(journal.kept for journal in journals), sum(journal.unkept for journal in journals))
            for outlet, journals in self._journals.items()
        }

    def picture(self, camera: str, jpeg: bytes) -> bool:
        """Whether it went out on MQTT as the camera's newest snapshot."""
        return self._mqtt is not None and self._mqtt.picture(camera, jpeg)

    def no_picture(self, camera: str) -> None:
        """None of its snapshots stands on MQTT any more."""
        if self._mqtt is not None:
            self._mqtt.no_picture(camera)

    async def start(self) -> None:
        """Before anything is said. What is left of webhooks that are no more is dropped."""
        await asyncio.to_thread(_drop_strangers, self._directory, self._files)
        await asyncio.gather(*(webhook.start() for webhook in self._webhooks))
        if self._mqtt is not None:
            await self._mqtt.start()

    def sweep(self) -> None:
        """Once all cameras are there: what the broker still has of others goes."""
        if self._mqtt is not None:
            self._mqtt.sweep(lambda camera: self._scene_of(camera) is not None)
        if self._home is not None:
            self._home.sweep()

    def leave_be(self) -> None:
        """From now on cameras go because the node stops."""
        for outlet in (self._mqtt, self._home):
            if outlet is not None:
                outlet.leave_be()

    async def stop(self) -> None:
        """What was just said still has a moment."""
        await asyncio.gather(*(webhook.stop() for webhook in self._webhooks))
        if self._mqtt is not None:
            await self._mqtt.stop()


def files_of(webhooks: Iterable[WebhookConfig]) -> list[str]:
    """The names of their journals, by URL: some of these are secrets."""
    names = Counter[str]()
    files = []
    for webhook in webhooks:
        name = hashlib.sha256(webhook.url.encode()).hexdigest()[:16]
        names[name] += 1
        files.append(f"webhook-{name}-{names[name]}.db")
    return files


def _drop_strangers(directory: Path, files: Sequence[str]) -> None:
    for path in directory.glob("webhook-*.db"):
        if path.name not in files:
            log.warning("%s is of a webhook that is no more: it goes, with all that waited there", path)
            with contextlib.suppress(OSError):
                remove(path)


def _open_port(broker_url: str, node: str, tls: TlsConfig) -> MqttPort:
    try:
        return MqttPort(
            broker_url,
            f"cameras-{node}",
            will=last_will(node),
            queue_limit=EVENTS_WAITING,
            queue_bytes=EVENTS_WAITING_BYTES,
            longest_pause_s=_LONGEST_PAUSE_S,
            tls=checked(tls),
        )
    except ValueError as error:
        raise SettingsError(f"broker_url: {error}") from error
