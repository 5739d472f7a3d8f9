"""Roboflow `inference`'s InferencePipeline with the same ONNX file: `python roboflow_streams.py MODEL URL...`.

Its documented way to run a model of one's own (`init_with_custom_logic`); nothing of it asks their service. Each line
on standard input is answered by one of JSON: how many pictures of each stream it has seen so far."""

import json
import sys

import cv2
import onnxruntime as ort
from inference import InferencePipeline

SIDE = 300


def main(model, *urls):
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = 2, 1
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    seen = dict.fromkeys(range(len(urls)), 0)

    def see(frames):
        answers = []
        for frame in frames:
            picture = cv2.resize(frame.image[:, :, ::-1], (SIDE, SIDE), interpolation=cv2.INTER_AREA)
            answers.append(session.run(None, {"image_tensor": picture[None]}))
            seen[frame.source_id or 0] += 1
        return answers

    pipeline = InferencePipeline.init_with_custom_logic(
        video_reference=list(urls), on_video_frame=see, on_prediction=lambda *_: None
    )
    pipeline.start(use_main_thread=False)
    for _ in sys.stdin:
        print(json.dumps(list(seen.values())), flush=True)
    pipeline.terminate()


if __name__ == "__main__":
    main(*sys.argv[1:])
