"""The lag of an event loop: it is noticed, remembered for a while, and its alarm is put off."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from typing import Any

import pytest
import uvloop

from runtime.links.process.loop_lag import LoopLag


def run(loop: str, story: Coroutine[Any, Any, None]) -> None:
    if loop == "uvloop":
        uvloop.run(story)
    else:
        asyncio.run(story)


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_what_blocks_the_loop_is_its_lag_and_is_forgotten_slowly(loop: str) -> None:
    async def story() -> None:
        lag = LoopLag()
        lag.start()
        await asyncio.sleep(0.05)
        time.sleep(0.2)  # noqa: ASYNC251 - this is what is to be noticed
        await asyncio.sleep(0.03)
        noticed_s = lag.seconds
        assert 0.15 < noticed_s < 10.0
        await asyncio.sleep(0.5)
        assert 0.2 * noticed_s < lag.seconds < 0.9 * noticed_s
        lag.stop()
        stopped_s = lag.seconds
        await asyncio.sleep(0.05)
        assert lag.seconds == stopped_s

    run(loop, story())
