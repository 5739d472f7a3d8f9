"""What a camera costs at least: `python -m benchmarks.cameras.bare URL MODEL`, one process, nothing but the work.

Each line on its standard input asks for so many pictures; they are decoded, resized and shown to ONNX Runtime one after
another, and the answer is a line of JSON. Between two such lines pictures are decoded and left alone.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from queue import Empty, SimpleQueue

import av
import cv2
import msgspec
import onnxruntime as ort

from benchmarks.cameras.detector import SIDE


class Worked(msgspec.Struct, frozen=True):
    """`cpu_s` of the whole process; `each_ms` from the packet to the result, of each picture."""

    cpu_s: float
    each_ms: list[float]


def main(url: str, model: str) -> None:
    cv2.setNumThreads(1)
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    asked: SimpleQueue[int] = SimpleQueue()
    threading.Thread(target=lambda: [asked.put(int(line)) for line in sys.stdin] and asked.put(0), daemon=True).start()
    pictures = _decoded(url)
    while True:
        next(pictures)
        try:
            count = asked.get_nowait()
        except Empty:
            continue
        if not count:
            return
        sys.stdout.buffer.write(msgspec.json.encode(_work(pictures, session, count)) + b"\n")
        sys.stdout.buffer.flush()


def _work(pictures: Iterator[tuple[float, av.VideoFrame]], session: ort.InferenceSession, count: int) -> Worked:
    began_s, each_ms = time.process_time(), []
    for _ in range(count):
        arrived_s, frame = next(pictures)
        picture = cv2.resize(frame.to_ndarray(format="rgb24", threads=1), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
        session.run(None, {"image_tensor": picture[None]})
        each_ms.append((time.perf_counter() - arrived_s) * 1000.0)
    return Worked(time.process_time() - began_s, each_ms)


def _decoded(url: str) -> Iterator[tuple[float, av.VideoFrame]]:
    """Each with when its packet was there."""
    options = {"rtsp_transport": "tcp", "fflags": "nobuffer", "flags": "low_delay"}
    with av.open(url, options=options) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        for packet in container.demux(stream):
            arrived_s = time.perf_counter()
            for frame in packet.decode():
                yield arrived_s, frame


if __name__ == "__main__":
    main(*sys.argv[1:])
