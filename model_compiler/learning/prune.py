"""Pruning: a smaller network from a bigger one, by whole channels or by single weights."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Literal

import msgspec

from model_compiler.data.samples import Floats
from model_compiler.errors import CompileError
from model_compiler.learning.allot import Damage, allot, evenly
from model_compiler.learning.channels import Group, Whole, find_groups, without
from model_compiler.learning.prune_unstructured import zero_least
from model_compiler.learning.sensitivity import Sensitivity, measure_sensitivity
from model_compiler.learning.size import Size, size_of
from model_compiler.progress import Advance, unwatched

if TYPE_CHECKING:
    import torch

    from model_compiler.learning.judge import Judge

Method = Literal["magnitude", "sensitivity", "unstructured"]
ROUND_TO = 8


class PrunedLayer(msgspec.Struct, frozen=True):
    """What `layers` have before and after: channels that go together; for `unstructured`, weights other than 0.

    `name` is that of the group: its first layer in the order in which the network runs backwards.
    """

    name: str
    layers: tuple[str, ...]
    before: int
    after: int


class PruneReport(msgspec.Struct, frozen=True):
    """`asked` and `reached`: shares of the channels that can go (those that go together count once), or of weights."""

    method: Method
    asked: float
    reached: float
    before: Size
    after: Size
    layers: tuple[PrunedLayer, ...]
    whole: tuple[Whole, ...] = ()
    sensitivities: tuple[Sensitivity, ...] = ()

    @property
    def removed(self) -> dict[str, int]:
        """How many channels of each group went, as `channels.without` takes it: none for `unstructured`."""
        if self.method == "unstructured":
            return {}
        return {layer.name: layer.before - layer.after for layer in self.layers}

    @property
    def summary(self) -> str:
        """What became of size and arithmetic, in a sentence."""
        sent = _less(self.before.compressed_bytes, self.after.compressed_bytes)
        if self.method == "unstructured":
            return (
                f"{self.reached:.0%} of the weights are 0: {sent} fewer bytes when compressed, none fewer as stored, "
                "and no faster, since zeros are stored and multiplied like any other number."
            )
        weights = _less(self.before.weights, self.after.weights)
        sums = _less(self.before.multiply_adds, self.after.multiply_adds)
        return f"{self.reached:.0%} of the channels went: {weights} fewer weights, {sums} fewer multiply-adds."


class Pruned(msgspec.Struct, frozen=True):
    """`net` is in eval mode, and has not learned since: train it again before it is judged."""

    net: torch.nn.Module
    report: PruneReport


def prune(
    net: torch.nn.Module,
    sample: Floats,
    *,
    method: Method,
    share: float,
    judge: Judge | None = None,
    keep: Iterable[str] = (),
    round_to: int = ROUND_TO,
    advance: Advance = unwatched,
) -> Pruned:
    """A copy of `net` without `share` of its channels, or, `unstructured`, with `share` of its weights at 0.

    `magnitude` takes the same share from every layer, `sensitivity` more from layers that `judge` misses less (see
    judge_by); both take the channels of the least magnitude, leave each layer that shrinks with a multiple of
    `round_to` channels, at least one, and leave the outputs and the layers named in `keep` whole. `sample`:
    (n >= 2, ...) float32, inputs as `net` takes them. The same inputs give the same network; `net` is not changed.

    Raises CompileError for a share that is not between 0 and 1 or cannot be reached, and where nothing can go.
    """
    if not 0 < share < 1:
        raise CompileError(f"The share to prune is {share}; it must be above 0 and below 1, such as 0.5.")
    if method == "unstructured":
        return _prune_weights(net, sample, share, keep)
    groups = find_groups(net, sample, keep=keep, round_to=round_to)
    wanted = _wanted(groups.prunable, groups.whole, share)
    sensitivities = _sensitivities(net, sample, groups.prunable, method, judge, advance)
    damage: dict[str, Damage] = {group.name: evenly for group in groups.prunable}
    damage.update({each.name: each.damage for each in sensitivities})
    removed = allot(groups.prunable, damage, wanted)
    _check_some(removed.values(), groups.prunable, share)
    smaller = without(net, sample, removed)
    advance(1.0)
    return Pruned(
        smaller,
        PruneReport(
            method=method,
            asked=share,
            reached=sum(removed.values()) / _channels(groups.prunable),
            before=size_of(net, sample),
            after=size_of(smaller, sample),
            layers=tuple(
                PrunedLayer(g.name, g.layers, g.channels, g.channels - removed[g.name]) for g in groups.prunable
            ),
            whole=groups.whole,
            sensitivities=tuple(sensitivities),
        ),
    )


def pruned_form(net: torch.nn.Module, sample: Floats, report: PruneReport) -> torch.nn.Module:
    """A network of the pruned form, to load the pruned network's kept weights into; its own weights mean nothing.

    `net`: built as the network that was pruned was built, with any weights.
    """
    return without(net, sample, report.removed)


def _prune_weights(net: torch.nn.Module, sample: Floats, share: float, keep: Iterable[str]) -> Pruned:
    sparse, layers = zero_least(net, share, keep=keep)
    before, after = size_of(net, sample), size_of(sparse, sample)
    counts = tuple(PrunedLayer(each.name, (each.name,), each.before, each.after) for each in layers)
    reached = 1 - sum(each.after for each in counts) / sum(each.weights for each in layers)
    return Pruned(sparse, PruneReport("unstructured", share, reached, before, after, counts))


def _sensitivities(
    net: torch.nn.Module,
    sample: Floats,
    groups: Sequence[Group],
    method: Method,
    judge: Judge | None,
    advance: Advance,
) -> list[Sensitivity]:
    if method == "magnitude":
        return []
    if judge is None:
        raise CompileError("Pruning by sensitivity needs samples to measure it on. Give judge=judge_by(validation).")
    return measure_sensitivity(net, sample, groups, judge, advance=advance)


def _wanted(groups: Sequence[Group], whole: Sequence[Whole], share: float) -> float:
    """How many channels shall go."""
    if not groups:
        reasons = "; ".join(f"{each.name}: {each.why}" for each in whole) or "no convolution and no linear layer"
        raise CompileError(
            f"Nothing can be pruned in this network ({reasons}). Keep fewer layers, round to fewer channels, or leave "
            "pruning out."
        )
    most, channels = sum(group.most() for group in groups), _channels(groups)
    if share * channels > most:
        raise CompileError(
            f"Pruning {share:.1%} of {channels} channels would leave some layer without any: at most "
            f"{most / channels:.1%} can go when each layer keeps a multiple of its step. Ask for a smaller share."
        )
    return share * channels


def _check_some(removed: Iterable[int], groups: Sequence[Group], share: float) -> None:
    if not any(removed):
        least = min(group.next_removed(0) for group in groups) / _channels(groups)
        raise CompileError(
            f"{share:.1%} of {_channels(groups)} channels is less than half a step: nothing would go. Ask for at least "
            f"{least:.1%}, or round to fewer channels."
        )


def _channels(groups: Sequence[Group]) -> int:
    return sum(group.channels for group in groups)


def _less(before: int, after: int) -> str:
    return f"{1 - after / before:.0%}"
