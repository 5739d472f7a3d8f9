"""`foothill demo-camera`: a street over RTSP into a box, a second box behind it, and what left the first one."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

import msgspec
from rich.console import Console

from edge_node.cameras.web.views import CameraView
from foothill import toml
from foothill.demo.camera import clip, detectors, parcels
from foothill.demo.camera.heard import Heard, listen
from foothill.demo.camera.report import print_report
from foothill.demo.folder import state_folder
from foothill.demo.narrator import Narrator, Show
from foothill.plain_http import get
from foothill.processes import Processes, http_ready, terminate_as_interrupt
from foothill.simulators.rtsp import Clip, RtspCamera
from foothill.site import MachineError
from model_compiler.pack import Packed
from runtime.links.process.ports import free_ports

CAMERA = "crossing"
_STEPS = ("Unpack", "Start", "Watch")
_LOOK_S = 1.0
_FIRST_PICTURE_S = 30.0


class CameraDemoOptions(msgspec.Struct, frozen=True):
    """`packages`: the folder with the wheels; `port` of the box's page, 0: any that is free; `state` None: a temporary
    folder, removed when all went well."""

    packages: Path
    seconds: float = 90.0
    port: int = 0
    state: Path | None = None


class _Made(msgspec.Struct, frozen=True):
    """Out of the packages."""

    clip: Clip
    small: Packed
    large: Packed


def demo_camera(options: CameraDemoOptions) -> None:
    """Tells the story and prints the report. Raises MachineError when nothing was seen, ProcessError."""
    parcels.check_there(options.packages)
    console = Console()
    with terminate_as_interrupt(), state_folder(options.state, console) as state:
        with Processes(state / "logs") as processes, Narrator(console, _STEPS) as narrator:
            made = _unpack(options.packages, state, narrator)
            heard = Heard()
            view = asyncio.run(_watch(made, state, processes, options, narrator, heard, console))
        print_report(view, heard, options.seconds, console)


def _unpack(packages: Path, state: Path, narrator: Narrator) -> _Made:
    with narrator.step("Unpack") as show:
        show(f"the clip of {parcels.CLIP.requirement}", 0.0)
        video = clip.encoded(parcels.opened(parcels.CLIP, packages))
        show(f"the detector of {parcels.PEOPLE.requirement}", 0.4)
        small = detectors.small(packages, state / "bundles/small")
        show(f"the detector of {parcels.COCO.requirement}", 0.6)
        large = detectors.large(packages, state / "bundles/large")
        show("a street, and two detectors as ONNX: 12 MB for people, 67 MB for 80 kinds of things", 1.0)
    return _Made(video, small, large)


async def _watch(
    made: _Made,
    state: Path,
    processes: Processes,
    options: CameraDemoOptions,
    narrator: Narrator,
    heard: Heard,
    console: Console,
) -> CameraView:
    """The last that the box told of its camera."""
    camera = RtspCamera(made.clip)
    rtsp_url = await camera.start()
    try:
        with narrator.step("Start") as show:
            url = _start(made, state, processes, options, rtsp_url, show)
        with narrator.step("Watch") as show:
            console.print(f"Look at it: [bold]{url}/cameras[/bold]", soft_wrap=True)
            listening = asyncio.create_task(listen(url, heard))
            try:
                return await _look(url, options.seconds, processes, heard, show)
            finally:
                listening.cancel()
                await asyncio.gather(listening, return_exceptions=True)
    finally:
        await camera.stop()


def _start(
    made: _Made, state: Path, processes: Processes, options: CameraDemoOptions, rtsp_url: str, show: Show
) -> str:
    """The box's URL. Both nodes are as an operator would have them: one file each."""
    port, behind = options.port or free_ports(1)[0], free_ports(1)[0]
    show("the office, with the large detector", 0.0)
    office = {"port": behind, "state_dir": str(state / "office"), "alone": _alone("office", made.large)}
    _run(processes, "office", office, state)
    show("the box, with the small one", 0.5)
    box = {
        "port": port,
        "state_dir": str(state / "box"),
        "cloud_urls": [f"http://127.0.0.1:{behind}"],
        "alone": _alone("box", made.small),
        "cameras": [_camera(rtsp_url)],
    }
    _run(processes, "box", box, state)
    show(f"a camera at {rtsp_url}, the box, and an office in the cloud's place", 1.0)
    return f"http://127.0.0.1:{port}"


def _camera(rtsp_url: str) -> dict[str, object]:
    return {
        "name": CAMERA,
        "url": rtsp_url,
        "model": detectors.MODEL,
        "lines": [{"name": "middle", "start": [0.5, 0.0], "end": [0.5, 1.0]}],
        "escalation": {"below": 0.8, "empty_after_s": 1.0, "longest_side": 416},
    }


def _alone(node: str, bundle: Packed) -> dict[str, object]:
    served = {"path": str(bundle.directory), "digest": bundle.digest}
    return {"node": node, "bundles": {detectors.MODEL: served}}


def _run(processes: Processes, name: str, config: dict[str, object], state: Path) -> None:
    file = state / f"{name}.toml"
    file.write_text(toml.dumps(config))
    child = processes.start(name, [sys.executable, "-m", "edge_node", str(file)])
    processes.wait_ready(child, http_ready(f"http://127.0.0.1:{config['port']}/v1/cameras"))


async def _look(url: str, seconds: float, processes: Processes, heard: Heard, show: Show) -> CameraView:
    began_s = time.monotonic()
    while True:
        await asyncio.sleep(_LOOK_S)
        processes.check()
        view = await asyncio.to_thread(_view, url)
        since_s = time.monotonic() - began_s
        show(_said(view, heard), since_s / seconds)
        if since_s >= seconds:
            return view
        if since_s > _FIRST_PICTURE_S and not view.frames.decoded:
            raise MachineError(f"The camera is {view.state}, and gave no picture in {since_s:.0f} s: {view.why}")


def _view(url: str) -> CameraView:
    return msgspec.json.decode(get(f"{url}/v1/cameras/{CAMERA}", timeout_s=10.0).body, type=CameraView)


def _said(view: CameraView, heard: Heard) -> str:
    return (
        f"{view.state}, {view.fps:.0f} pictures a second, {heard.things.total()} things, "
        f"{sum(view.sent.values())} pictures sent"
    )
