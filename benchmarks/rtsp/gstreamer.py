"""GStreamer's RTSP server, for Debian's own Python, which has its bindings: `/usr/bin/python3 gstreamer.py PORT
CAMERA...`.

A CAMERA is JSON: {"path", "clip", "fps", "codec", "user", "password", "digest", "after_ms"}. What is encoded is sent as
it is; `after_ms` is what its pictures come after those of the others. PORT 0 is any that is free. The first line that
is printed is the port; then it does what it is told by lines of JSON on its standard input: {"path", "do"} with `stall`
(nothing more is sent, connections stay), `go`, `kick` (its callers are thrown out), `corrupt` (of so many packets, as
"count" says, every byte behind the first few is noise), `switch` (to another "clip").

Debian: gir1.2-gst-rtsp-server-1.0, gstreamer1.0-plugins-good, gstreamer1.0-plugins-bad, python3-gi.
"""

import json
import random
import struct
import sys
import threading
import time
from pathlib import Path

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtsp", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtsp, GstRtspServer  # noqa: E402

HEAD = struct.Struct(">IB")
PARSERS = {
    "h264": ("video/x-h264,stream-format=byte-stream,alignment=au", "h264parse config-interval=-1", "rtph264pay"),
    "hevc": ("video/x-h265,stream-format=byte-stream,alignment=au", "h265parse config-interval=-1", "rtph265pay"),
    "mjpeg": ("image/jpeg", "jpegparse", "rtpjpegpay"),
}


def access_units(path):
    """Of a file as benchmarks.rtsp.clips writes them: (is a keyframe, bytes)."""
    data, at, units = Path(path).read_bytes(), 0, []
    while at < len(data):
        size, key = HEAD.unpack_from(data, at)
        at += HEAD.size
        units.append((bool(key), data[at : at + size]))
        at += size
    return units


class Camera:
    """One path. All who watch it see the same."""

    def __init__(self, server, told):
        self.units = access_units(told["clip"])
        self.next = 0
        self.sources = []
        self.stalled = False
        self.noisy = 0
        self.server = server
        self.path = told["path"]
        self.rng = random.Random(1)
        caps, parser, payloader = PARSERS[told.get("codec", "h264")]
        factory = GstRtspServer.RTSPMediaFactory()
        factory.set_launch(
            f"( appsrc name=source is-live=true do-timestamp=true format=time block=false max-bytes=8000000 "
            f'caps="{caps},framerate={told["fps"]}/1" ! {parser} ! {payloader} name=pay0 pt=96 )'
        )
        factory.set_shared(True)
        factory.set_latency(0)
        factory.connect("media-configure", self.configure)
        if told.get("user"):
            permissions = GstRtspServer.RTSPPermissions()
            permissions.add_role("viewer")
            for what in ("media.factory.access", "media.factory.construct"):
                permissions.add_permission_for_role("viewer", what, True)
            factory.set_permissions(permissions)
        server.get_mount_points().add_factory(self.path, factory)
        self.every_s = 1.0 / told["fps"]
        self.due_s = time.monotonic() + told.get("after_ms", 0) / 1000.0
        self.wait()

    def wait(self):
        """By the clock, so that cameras stay as far apart as they began."""
        self.due_s = max(self.due_s + self.every_s, time.monotonic())
        GLib.timeout_add(max(0, round((self.due_s - time.monotonic()) * 1000.0)), self.push)

    def configure(self, _factory, media):
        source = media.get_element().get_child_by_name("source")
        self.sources.append(source)
        self.next = 0  # who comes first sees a keyframe at once
        media.connect("unprepared", lambda _: self.sources.remove(source))

    def push(self):
        self.wait()
        if self.stalled or not self.sources:
            return False
        _, data = self.units[self.next]
        self.next = (self.next + 1) % len(self.units)
        if self.noisy:
            self.noisy -= 1
            data = data[:40] + bytes(self.rng.randrange(256) for _ in range(max(0, len(data) - 40)))
        for source in self.sources:
            source.emit("push-buffer", Gst.Buffer.new_wrapped(data))
        return False

    def do(self, told):
        if told["do"] in ("stall", "go"):
            self.stalled = told["do"] == "stall"
        elif told["do"] == "corrupt":
            self.noisy = told["count"]
        elif told["do"] == "switch":
            self.units, self.next = access_units(told["clip"]), 0
        elif told["do"] == "kick":
            self.server.client_filter(lambda *_: GstRtspServer.RTSPFilterResult.REMOVE)
        return False


def protect(server, cameras):
    """The server knows one user for all its paths."""
    told = next((camera for camera in cameras if camera.get("user")), None)
    if told is None:
        return
    auth = GstRtspServer.RTSPAuth()
    token = GstRtspServer.RTSPToken()
    token.set_string("media.factory.role", "viewer")
    if told.get("digest"):
        auth.set_supported_methods(GstRtsp.RTSPAuthMethod.DIGEST)
        auth.add_digest(told["user"], told["password"], token)
    else:
        auth.add_basic(GstRtspServer.RTSPAuth.make_basic(told["user"], told["password"]), token)
    nobody = GstRtspServer.RTSPToken()
    nobody.set_string("media.factory.role", "nobody")
    server.set_auth(auth)


def main():
    Gst.init(None)
    told = [json.loads(camera) for camera in sys.argv[2:]]
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(sys.argv[1])
    protect(server, told)
    cameras = {camera["path"]: Camera(server, camera) for camera in told}
    server.attach(None)
    print(server.get_bound_port(), flush=True)
    loop = GLib.MainLoop()

    def obey():
        for line in sys.stdin:
            order = json.loads(line)
            GLib.idle_add(cameras[order["path"]].do, order)
        GLib.idle_add(loop.quit)

    threading.Thread(target=obey, daemon=True).start()
    loop.run()


if __name__ == "__main__":
    main()
