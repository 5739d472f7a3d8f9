"""NNCF's default quantization, run in an environment of its own: python nncf_peer.py FP32.onnx INPUTS.npy OUT.onnx

python -m venv .venv-nncf && .venv-nncf/bin/pip install nncf==3.4.0 onnx onnxruntime
"""

from __future__ import annotations

import sys


def main(fp32: str, inputs: str, out: str) -> None:
    import nncf
    import numpy as np
    import onnx

    model = onnx.load(fp32)
    rows = np.load(inputs)
    name = model.graph.input[0].name
    dataset = nncf.Dataset([{name: row[None]} for row in rows])
    onnx.save(nncf.quantize(model, dataset), out)
    print(nncf.__version__)


if __name__ == "__main__":
    main(*sys.argv[1:])
