"""Outcomes of a demo that never ran, of a believable shape."""

from __future__ import annotations

import random

from foothill.demo.figures import BadRollout, Models, ModelSize, OffSite, RolloutFigures, Story
from foothill.demo.traffic import Outcome

STORY = Story(
    epsilon=0.02,
    delta=0.05,
    bytes_off_site=OffSite(hybrid=712_345, all_cloud=6_123_456),
    models=Models(teacher=ModelSize(1_570_000, 0.412), student_int8=ModelSize(14_200, 0.031)),
    rollout=RolloutFigures(3, 2.41),
    bad_rollout=BadRollout(
        1, 1, 1, 14.2, 12.1, 2.1, "disagreement of the canary 11 of 62, 1.9 % before: p1 accepted", 62
    ),
    countries=41,
    clients=120,
    seconds=151.0,
)


def outcomes(way: str, count: int = 2000, seed: int = 1) -> list[Outcome]:
    made = []
    for at in range(count):
        # The same call has the same truth and the same answer of the cloud on every way.
        rng = random.Random(seed * count + at)
        truth = str(rng.randrange(10))
        cloud_label = truth if rng.random() < 0.985 else str(rng.randrange(10))
        escalated = rng.random() < 0.12 and way == "hybrid"
        at_edge = way != "cloud" and not escalated
        edge_label = cloud_label if rng.random() < 0.99 else str(rng.randrange(10))
        network = rng.lognormvariate(3.3, 0.7) if way != "cloud" else rng.lognormvariate(4.8, 0.6)
        phases = {"network": network, "queue": rng.expovariate(4), "decode": 0.05, "infer": rng.expovariate(2)}
        if escalated:
            phases["escalate"] = rng.lognormvariate(4.6, 0.6)
        if rng.random() < 0.06:
            phases["lease"] = rng.lognormvariate(4.6, 0.6)
        made.append(
            Outcome(
                at,
                leased=rng.random() < 0.9,
                kind="jpeg",
                region="eastus",
                truth=truth,
                status=200,
                error="",
                total_ms=sum(phases.values()),
                label=edge_label if at_edge else cloud_label,
                tier="edge" if at_edge else "cloud",
                node=rng.choice(["frankfurt", "ashburn", "tokyo"]) if at_edge else "cloud",
                reason="confident" if at_edge else "doubtful" if escalated else "cloud",
                confidence=0.9,
                certified=True,
                phases_ms=phases,
                sent_bytes=700,
                received_bytes=200,
            )
        )
    return made
