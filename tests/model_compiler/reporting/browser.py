"""A port to a headless Chromium over its DevTools protocol: opens a page, asks it questions, hears its complaints."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import shutil
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

_LISTENING = re.compile(rb"DevTools listening on (ws://\S+)")
_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_ANSWER_S = 60.0


def find_chromium() -> str | None:
    return next((found for found in map(shutil.which, _NAMES) if found), None)


class Tab:
    """One page. `complaints`: what its console and its loader said was wrong; `requests`: the addresses it wanted."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse[bool], session: str) -> None:
        self._socket = socket
        self._session = session
        self._sent = self._loads = 0
        self.complaints: list[str] = []
        self.requests: list[str] = []

    async def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """The result of `method`, asked of the page, or of the browser itself where there is no session yet."""
        self._sent += 1
        session = {"sessionId": self._session} if self._session else {}
        await self._socket.send_json({"id": self._sent, "method": method, "params": parameters, **session})
        answer = await self._receive(lambda heard: heard.get("id") == self._sent)
        result: dict[str, Any] = answer["result"]
        return result

    async def open(self, url: str) -> None:
        loads = self._loads
        await self.send("Page.navigate", url=url)
        while self._loads == loads:
            await self._receive(lambda heard: True)

    async def evaluate(self, expression: str) -> Any:
        answer = await self.send("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    async def look_like(self, *, width: int, height: int = 844, dark: bool = False, media: str = "screen") -> None:
        await self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.send("Emulation.setEmulatedMedia", media=media, features=[scheme])

    async def screenshot(self) -> bytes:
        answer = await self.send("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        return base64.b64decode(answer["data"])

    async def _receive(self, wanted: Callable[[Mapping[str, Any]], bool]) -> dict[str, Any]:
        while True:
            heard: dict[str, Any] = json.loads(await self._socket.receive_str(timeout=_ANSWER_S))
            self._note(heard)
            if wanted(heard):
                assert "error" not in heard, heard
                return heard

    def _note(self, heard: Mapping[str, Any]) -> None:
        method, told = heard.get("method"), heard.get("params", {})
        if method == "Page.loadEventFired":
            self._loads += 1
        elif method == "Log.entryAdded":
            self.complaints.append(told["entry"]["text"])
        elif method == "Runtime.consoleAPICalled":
            self.complaints.append(str(told["args"]))
        elif method == "Runtime.exceptionThrown":
            self.complaints.append(str(told["exceptionDetails"]))
        elif method == "Network.requestWillBeSent":
            self.requests.append(told["request"]["url"])


@asynccontextmanager
async def open_tab(chromium: str, profile: Path) -> AsyncIterator[Tab]:
    process = await asyncio.create_subprocess_exec(
        chromium, "--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0", "--no-first-run",
        f"--user-data-dir={profile}", "about:blank",
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        async with aiohttp.ClientSession() as http, http.ws_connect(await _address(process), max_msg_size=0) as socket:
            yield await _attach(socket)
    finally:
        process.terminate()
        await process.communicate()


async def _address(process: asyncio.subprocess.Process) -> str:
    assert process.stderr is not None
    while line := await asyncio.wait_for(process.stderr.readline(), _ANSWER_S):
        if found := _LISTENING.search(line):
            return found[1].decode()
    raise AssertionError("Chromium ended before it listened.")


async def _attach(socket: aiohttp.ClientWebSocketResponse[bool]) -> Tab:
    browser = Tab(socket, "")
    created = await browser.send("Target.createTarget", url="about:blank")
    attached = await browser.send("Target.attachToTarget", targetId=created["targetId"], flatten=True)
    tab = Tab(socket, attached["sessionId"])
    for domain in ("Page", "Runtime", "Log", "Network"):
        await tab.send(f"{domain}.enable")
    return tab
