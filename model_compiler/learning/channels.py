"""Which channels of a network can go together, and the network without them; torch-pruning knows what hangs on what."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import msgspec

from model_compiler.data.samples import Floats
from model_compiler.errors import CompileError
from model_compiler.learning.judge import evaluating

if TYPE_CHECKING:
    import torch
    import torch_pruning


class Group(msgspec.Struct, frozen=True):
    """Layers whose output channels go together or not at all: a residual sum, a gate, a depthwise convolution.

    `name` is the first layer's; `layers` are all whose outputs shrink; what follows them shrinks its inputs. The
    number of channels left must be a multiple of `step`.
    """

    name: str
    layers: tuple[str, ...]
    channels: int
    step: int

    def most(self) -> int:
        """How many channels can go at most: one step of them stays."""
        return max(0, self.channels - self.step)

    def next_removed(self, removed: int) -> int:
        """How many have gone after the next step, when `removed` have now."""
        left = self.channels - removed
        return self.channels - (left - 1) // self.step * self.step

    def nearest(self, share: float) -> int:
        """The possible number of removed channels nearest to `share` of them; at least the first step."""
        removed = self.next_removed(0)
        while removed < self.most() and self._off(self.next_removed(removed), share) < self._off(removed, share):
            removed = self.next_removed(removed)
        return removed

    def _off(self, removed: int, share: float) -> float:
        return abs(removed - share * self.channels)


class Whole(msgspec.Struct, frozen=True):
    """A group that keeps all its channels, and why."""

    name: str
    channels: int
    why: str


class Groups(msgspec.Struct, frozen=True):
    prunable: tuple[Group, ...]
    whole: tuple[Whole, ...]


def find_groups(net: torch.nn.Module, sample: Floats, *, keep: Iterable[str], round_to: int) -> Groups:
    """Every group of `net`, each tried alone: one whose loss changes the outputs' shapes or breaks the net stays whole.

    `sample`: (n >= 2, ...) float32. `keep` names layers that must stay whole. Raises CompileError for a name that
    is not a layer's, or a network that cannot be traced.
    """
    kept = set(keep)
    check_names(net, kept)
    order = {name: number for number, (name, _) in enumerate(net.named_modules())}
    prunable: list[Group] = []
    whole: list[Whole] = []
    for group in sorted(_groups(_trace(_unfrozen_copy(net), sample), round_to), key=lambda each: order[each.name]):
        why = _why_whole(net, sample, group, kept)
        if why:
            whole.append(Whole(group.name, group.channels, why))
        else:
            prunable.append(group)
    return Groups(tuple(prunable), tuple(whole))


def without(net: torch.nn.Module, sample: Floats, removed: Mapping[str, int]) -> torch.nn.Module:
    """A copy of `net`, in eval mode, without the `removed` number of channels of each named group.

    Those of the least magnitude go: the mean of the squared weights that make or use a channel, over all layers of the
    group (Li et al. 2017, "Pruning Filters for Efficient ConvNets"; over groups: Fang et al. 2023, "DepGraph").
    Raises CompileError when groups that can each go alone break the network together.
    """
    try:
        smaller = _without(net, sample, removed)
        fits = _shapes(smaller, sample) == _shapes(net, sample)
    except _FOREIGN as error:
        raise CompileError(_TOGETHER.format(f"({type(error).__name__}: {error})")) from error
    if not fits:
        raise CompileError(_TOGETHER.format("(its outputs change their shapes)"))
    return smaller


_TOGETHER = (
    "Layers that can each lose channels alone break the network when they all do {}. Keep some of them whole by name: "
    "keep=(...)."
)


def _without(net: torch.nn.Module, sample: Floats, removed: Mapping[str, int]) -> torch.nn.Module:
    smaller = _unfrozen_copy(net)
    graph = _trace(smaller, sample)
    layers = dict(smaller.named_modules())
    # All are chosen before any goes: taking one group's channels changes the magnitudes of its neighbours.
    chosen = {name: _least(graph, layers[name], count) for name, count in removed.items() if count}
    for name, channels in chosen.items():
        layer = layers[name]
        graph.get_pruning_group(layer, graph.get_pruner_of_module(layer).prune_out_channels, channels).prune()
    frozen = {name for name, parameter in net.named_parameters() if not parameter.requires_grad}
    for name, parameter in smaller.named_parameters():
        parameter.requires_grad_(name not in frozen)
    return smaller


def _why_whole(net: torch.nn.Module, sample: Floats, group: Group, kept: set[str]) -> str:
    """Why the group cannot lose channels; empty where it can."""
    if kept.intersection(group.layers):
        return "kept by name"
    if group.most() == 0:
        return f"has no more than {group.step} channels"
    before = _shapes(net, sample)
    try:
        after = _shapes(_without(net, sample, {group.name: group.next_removed(0)}), sample)
    except _FOREIGN as error:
        return f"the network does not run without some of them ({type(error).__name__})"
    return "" if after == before else "they are the network's outputs"


def _groups(graph: torch_pruning.DependencyGraph, round_to: int) -> Iterator[Group]:
    import torch

    types = [torch.nn.modules.conv._ConvNd, torch.nn.Linear]
    for found in graph.get_all_groups(root_module_types=types):
        root = found[0].dep.target.module
        layers = dict.fromkeys(
            graph._module2name[dep.target.module]
            for dep, _ in found
            if isinstance(dep.target.module, tuple(types)) and graph.is_out_channel_pruning_fn(dep.handler)
        )
        channels, step = graph.get_out_channels(root), math.lcm(round_to, _splits(graph, found))
        yield Group(graph._module2name[root], tuple(layers), channels, step)


def _splits(graph: torch_pruning.DependencyGraph, group: Any) -> int:
    """Into how many equal parts grouped convolutions and group norms divide the channels; all must shrink alike."""
    import torch

    splits = 1
    for dep, _ in group:
        layer, pruner = dep.target.module, graph.get_pruner_of_module(dep.target.module)
        depthwise = isinstance(layer, torch.nn.modules.conv._ConvNd) and layer.groups == layer.out_channels
        if isinstance(layer, torch.nn.Module) and not depthwise and hasattr(pruner, "get_out_channel_groups"):
            out = graph.is_out_channel_pruning_fn(dep.handler)
            parts = pruner.get_out_channel_groups(layer) if out else pruner.get_in_channel_groups(layer)
            splits = math.lcm(splits, parts)
    return splits


def _least(graph: torch_pruning.DependencyGraph, layer: torch.nn.Module, count: int) -> list[int]:
    """The numbers of the `count` channels of the least magnitude; equal ones in their order."""
    import torch
    from torch_pruning.pruner.importance import GroupMagnitudeImportance

    prune = graph.get_pruner_of_module(layer).prune_out_channels
    group = graph.get_pruning_group(layer, prune, list(range(graph.get_out_channels(layer))))
    magnitudes = GroupMagnitudeImportance(normalizer=None)(group)
    splits = _splits(graph, group)
    size = len(magnitudes) // splits
    order = torch.argsort(magnitudes.view(splits, size).mean(dim=0), stable=True)[: count // splits]
    return sorted(int(each) + part * size for part in range(splits) for each in order)


def _trace(net: torch.nn.Module, sample: Floats) -> torch_pruning.DependencyGraph:
    import torch
    import torch_pruning

    try:
        with torch.inference_mode(False), torch.enable_grad(), _unwarned():
            # By forward_fn: it would first try to take the inputs apart, and count the layers as used twice.
            return torch_pruning.DependencyGraph().build_dependency(
                net, torch.from_numpy(sample[:2]), forward_fn=lambda traced, inputs: traced(inputs)
            )
    except _FOREIGN as error:
        raise CompileError(
            f"The network cannot be traced for pruning ({type(error).__name__}: {error}). It must run on inputs of "
            f"shape {tuple(sample.shape)}, without control flow on tensors; or leave pruning out of the recipe."
        ) from error


def _unfrozen_copy(net: torch.nn.Module) -> torch.nn.Module:
    """Tracing follows gradients, so that a frozen layer would not be seen."""
    import torch

    with torch.inference_mode(False):
        return copy.deepcopy(net).requires_grad_(True)


def _shapes(net: torch.nn.Module, sample: Floats) -> list[tuple[int, ...]]:
    import torch
    from torch_pruning.utils import flatten_as_list

    with evaluating(net), torch.inference_mode():
        return [tuple(output.shape) for output in flatten_as_list(net(torch.from_numpy(sample[:2])))]


def check_names(net: torch.nn.Module, names: set[str]) -> None:
    known = [name for name, _ in net.named_modules()]
    unknown: Sequence[str] = sorted(names.difference(known))
    if unknown:
        raise CompileError(f"The network has no layer {unknown[0]!r} to keep. Its layers: {', '.join(known[1:])}.")


@contextmanager
def _unwarned() -> Iterator[None]:
    """torch-pruning warns of parameters outside layers and of unknown operations; each group is tried here anyway."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning)
        yield


_FOREIGN = (RuntimeError, ValueError, TypeError, AttributeError, AssertionError, LookupError, ArithmeticError)
"""What tracing and running a network that torch-pruning does not understand has been seen to raise: no common base."""
