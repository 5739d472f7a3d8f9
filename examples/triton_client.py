"""The same answers through `tritonclient`, unchanged: router, node and cloud all speak its protocol.

`pip install 'tritonclient[http]'`; in another terminal `foothill up`; then `python examples/triton_client.py`.
"""

from __future__ import annotations

import sys

import numpy as np
import tritonclient.http as triton

SERVER = sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:8080"  # 8090 is the cloud tier, 8101..8103 the nodes


def main() -> None:
    with triton.InferenceServerClient(SERVER) as client:
        print("ready:", client.is_model_ready("digits"))
        metadata = client.get_model_metadata("digits")
        print("takes", metadata["inputs"], "gives", metadata["outputs"])

        image = np.zeros((1, 1, 32, 32), np.float32)
        given = triton.InferInput("image", list(image.shape), "FP32")
        given.set_data_from_numpy(image)  # binary tensors, the protocol's fast way

        # What Foothill adds travels in headers: wishes there, and back where, why and how sure.
        result = client.infer(
            "digits", [given], headers={"Foothill-Escalation": "auto", "Foothill-Deadline-Ms": "2000"}
        )
        logits = result.as_numpy("logits")
        answered = client.get_inference_statistics("digits")["model_stats"][0]["inference_stats"]["success"]["count"]
        print(f"label {int(logits.argmax())} of {logits.shape[1]}; this server has answered {answered} requests")


if __name__ == "__main__":
    main()
