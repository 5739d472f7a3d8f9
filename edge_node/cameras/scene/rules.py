"""Rules of the kind `a person in zone yard for 5 s`: each tells once that it began, and once that it is over."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from edge_node.cameras.scene.config import RuleConfig
from edge_node.cameras.scene.events import RuleBegan, RuleEnded
from edge_node.cameras.scene.zones import Present

_ROUNDING_S = 1e-6


class Rules:
    """The rules of one camera."""

    def __init__(self, rules: Iterable[RuleConfig]) -> None:
        self._rules = [_Rule(rule) for rule in rules]

    def update(self, present: Callable[[str], Sequence[Present]], at_s: float) -> tuple[RuleBegan | RuleEnded, ...]:
        """What has begun and what is over by now; `present` says who is in a zone."""
        events: list[RuleBegan | RuleEnded] = []
        for rule in self._rules:
            events.extend(rule.update(present(rule.zone), at_s))
        return tuple(events)


class _Rule:
    def __init__(self, config: RuleConfig) -> None:
        self.zone = config.zone
        self._config = config
        self._episode = 0
        self._began_s: float | None = None
        self._ended_s: float | None = None

    def update(self, present: Sequence[Present], at_s: float) -> Iterator[RuleBegan | RuleEnded]:
        tracks = tuple(each.track for each in present if self._counts(each, at_s))
        holds = len(tracks) >= self._config.at_least
        if self._began_s is None and holds and self._is_rested(at_s):
            self._began_s, self._episode = at_s, self._episode + 1
            yield RuleBegan(self._config.name, self._episode, tracks, at_s)
        elif self._began_s is not None and not holds:
            yield RuleEnded(self._config.name, self._episode, at_s, at_s - self._began_s)
            self._began_s, self._ended_s = None, at_s

    def _counts(self, present: Present, at_s: float) -> bool:
        fits = not self._config.labels or present.label in self._config.labels
        return fits and at_s - present.since_s >= self._config.for_s - _ROUNDING_S

    def _is_rested(self, at_s: float) -> bool:
        return self._ended_s is None or at_s - self._ended_s >= self._config.cooldown_s - _ROUNDING_S
