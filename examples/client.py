"""Ask for answers from Python. First, in another terminal: `foothill up`. Then: `python examples/client.py`.

`pip install foothill` is enough for this file; numpy is used where it is installed, and not needed.
"""

from __future__ import annotations

import sys
from pathlib import Path

from foothill import Classification, Client, Predicted, RequestError

ROUTER = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8080"
PICTURE = Path(__file__).with_name("seven.png")  # a digit as a cheap camera sees it (UCI optdigits, CC BY 4.0)


def main() -> None:
    # One question to the router, once in a while: where is the nearest node? The pictures go straight there.
    with Client(ROUTER, deadline_ms=2000) as client:
        lease = client.lease("digits")
        print("nodes, nearest first:", ", ".join(f"{node.node} ({node.rtt_ms:.0f} ms)" for node in lease.nodes))

        # A picture in, a typed answer out, with where it was made, why there, how sure, and where the time went.
        answer = client.predict("digits", PICTURE.read_bytes())
        print(f"it is a {digit(answer)}, {answer.confidence or 0.0:.1%} sure, {answer.total_ms:.1f} ms in all")
        print(f"answered by {answer.node} ({answer.tier}: {answer.reason}) with {answer.bundle}")
        print("of which", ", ".join(f"{phase} {ms:.2f} ms" for phase, ms in answer.timings_ms.items()))

        # The caller's wishes: the big model in any case; or nothing but the edge.
        big = client.predict("digits", PICTURE.read_bytes(), escalation="always")
        small = client.predict("digits", PICTURE.read_bytes(), escalation="never")
        print(f"always escalated: {digit(big)} from {big.node}; never: {digit(small)} from {small.node}")

        # Tensors, by the Open Inference Protocol: name -> (datatype, shape, bytes), or a numpy array.
        blank = ("FP32", (1, 1, 32, 32), bytes(4 * 32 * 32))
        logits = client.infer("digits", {"image": blank}).outputs["logits"]
        print(f"the logits of nothing: {logits.shape}, the largest {max(logits.values()):.2f}")

        # An error says what happened, whose fault it is, and whether it is worth another try.
        try:
            client.predict("digits", b"no picture", "image/png")
        except RequestError as error:
            print(f"refused as it should be: {error.code} by {error.source}: {error.message}")


def digit(answer: Predicted) -> str:
    """The model decides what kind of answer it gives; this one classifies."""
    assert isinstance(answer.prediction, Classification)
    return answer.prediction.label


if __name__ == "__main__":
    main()
