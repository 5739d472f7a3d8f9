"""Pruning: what goes, what stays whole, what is refused, and that the rest still says the same."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from model_compiler.data.samples import Arrays, Floats
from model_compiler.digits import nets
from model_compiler.errors import CompileError
from model_compiler.learning.allot import Damage, allot, evenly
from model_compiler.learning.channels import Group, find_groups, without
from model_compiler.learning.judge import judge_by
from model_compiler.learning.prune import Method, prune, pruned_form
from model_compiler.learning.prune_unstructured import zeros_held
from model_compiler.learning.sensitivity import curve
from model_compiler.learning.train import Schedule, seeded, train

PICTURES = np.random.default_rng(0).standard_normal((4, 3, 16, 16)).astype(np.float32)
DIGITS = np.random.default_rng(0).standard_normal((4, 1, 32, 32)).astype(np.float32)


class Branched(nn.Module):  # type: ignore[misc]
    """All that ties channels together: a residual, a depthwise convolution, squeeze-excite, concatenation, flatten."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(32)
        self.depthwise = nn.Conv2d(32, 32, 3, padding=1, groups=32)
        self.squeeze, self.excite = nn.Conv2d(32, 16, 1), nn.Conv2d(16, 32, 1)
        self.inner = nn.Conv2d(32, 32, 3, padding=1)
        self.left, self.right = nn.Conv2d(32, 24, 1), nn.Conv2d(32, 16, 1)
        self.joint = nn.Conv2d(40, 16, 1)
        self.hidden, self.head = nn.Linear(16 * 4, 24), nn.Linear(24, 10)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        stem = torch.relu(self.norm(self.stem(inputs)))
        gate = torch.sigmoid(self.excite(torch.relu(self.squeeze(stem.mean((2, 3), keepdim=True)))))
        summed = self.depthwise(stem) * gate + self.inner(stem)
        joined = self.joint(torch.cat([self.left(summed), self.right(summed)], dim=1).relu())
        flat = nn.functional.adaptive_avg_pool2d(joined, 2).flatten(1)
        outputs: torch.Tensor = self.head(torch.relu(self.hidden(flat)))
        return outputs


def branched(seed: int = 0) -> Branched:
    """Trained norms: their statistics differ from channel to channel."""
    with seeded(seed):
        net = Branched()
        nn.init.normal_(net.norm.weight)
        nn.init.normal_(net.norm.running_mean)
    net.eval()
    return net


def outputs(net: nn.Module, inputs: Floats) -> Floats:
    with torch.inference_mode():
        return np.asarray(net(torch.from_numpy(inputs)), np.float32)


def state(net: nn.Module) -> dict[str, bytes]:
    return {name: values.numpy().tobytes() for name, values in net.state_dict().items()}


def least_wanted(net: nn.Module) -> float:
    """A judge for whom only the layers near the end count: the more of them is left, the better."""
    return float(net.hidden.weight.numel() + net.head.weight.numel()) / (24 * 64 + 240)


def test_channels_without_weights_go_first_and_are_not_missed() -> None:
    """The strongest check of the bookkeeping: through residual, gate, concatenation and flatten, outputs stay."""
    net = branched()
    dead = {"stem": [1, 5, 6, 7, 20, 21, 30, 31], "left": range(8, 16), "right": range(0, 16, 2), "joint": range(4, 12)}
    with torch.no_grad():
        net.norm.weight[dead["stem"]] = 0
        net.norm.bias[dead["stem"]] = 0
        for layer in (net.stem, net.depthwise, net.inner, net.excite, net.left, net.right, net.joint):
            name = "stem" if layer.weight.shape[0] == 32 else next(key for key in dead if getattr(net, key) is layer)
            layer.weight[list(dead[name])] = 0
            if layer.bias is not None:
                layer.bias[list(dead[name])] = 0
    groups = find_groups(net, PICTURES, keep=(), round_to=8).prunable
    of = {layer: group.name for group in groups for layer in group.layers}
    assert of["stem"] == of["depthwise"] == of["inner"] == of["excite"]
    smaller = without(net, PICTURES, {of[name]: 8 for name in dead})
    assert [smaller.stem.out_channels, smaller.left.out_channels, smaller.right.out_channels] == [24, 16, 8]
    assert (smaller.joint.weight.shape, smaller.hidden.weight.shape) == ((8, 24, 1, 1), (24, 8 * 4))
    assert np.allclose(outputs(smaller, PICTURES), outputs(net, PICTURES), atol=1e-5)


@pytest.mark.parametrize("method", ["magnitude", "sensitivity"])
def test_a_pruned_network_runs_and_is_smaller_in_weights_and_arithmetic(method: Method) -> None:
    net = branched()
    before = state(net)
    pruned = prune(net, PICTURES, method=method, share=0.4, judge=least_wanted)
    report = pruned.report
    assert outputs(pruned.net, PICTURES).shape == (4, 10)
    assert not pruned.net.training
    assert report.after.weights == sum(each.numel() for each in pruned.net.parameters()) < report.before.weights
    assert report.after.multiply_adds < report.before.multiply_adds
    assert report.after.bytes < report.before.bytes
    assert report.reached == pytest.approx(0.4, abs=0.05)
    assert all(layer.after == layer.before or layer.after % 8 == 0 for layer in report.layers)
    assert all(layer.after > 0 for layer in report.layers)
    assert [(each.name, each.channels) for each in report.whole] == [("head", 10)]
    assert "outputs" in report.whole[0].why
    assert state(net) == before
    assert msgspec.json.decode(msgspec.json.encode(report), type=type(report)) == report


def test_magnitude_takes_the_same_share_everywhere_and_sensitivity_spares_what_matters() -> None:
    def left(method: Method) -> dict[str, float]:
        layers = prune(branched(), PICTURES, method=method, share=0.4, judge=least_wanted).report.layers
        return {name: layer.after / layer.before for layer in layers for name in layer.layers}

    even, spared = left("magnitude"), left("sensitivity")
    assert max(even.values()) - min(even.values()) <= 0.5
    assert even["hidden"] < spared["hidden"] == 1


def test_sensitivity_is_what_the_judge_says_of_each_group_alone() -> None:
    report = prune(branched(), PICTURES, method="sensitivity", share=0.4, judge=least_wanted).report
    drops = {
        name: each
        for each in report.sensitivities
        for name in next(layer.layers for layer in report.layers if layer.name == each.name)
    }
    assert list(drops["stem"].drops) == [0, 0, 0, 0, 1]
    assert list(drops["stem"].lost) == [0, 0.25, 0.5, 0.75, 1]
    assert drops["hidden"].damage(1 / 3) == pytest.approx(
        1 - least_wanted(without(branched(), PICTURES, {"hidden": 8}))
    )


def test_sensitivity_can_be_measured_by_accuracy_on_samples() -> None:
    """Half of the channels carry the answer: the layer that cannot spare any keeps more."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 16, 200)
    inputs = np.eye(16, dtype=np.float32)[labels] + 0.01 * rng.standard_normal((200, 16)).astype(np.float32)
    net = nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 16))
    with torch.no_grad():
        for layer in (net[0], net[2], net[4]):
            layer.weight.zero_()
            layer.bias.zero_()
        net[0].weight.copy_(torch.eye(16))
        net[2].weight[:16] = torch.eye(16)
        net[4].weight[:, :16] = torch.eye(16)
    judge = judge_by(Arrays(inputs, labels))
    assert judge(net) == 1
    pruned = prune(net, inputs, method="sensitivity", share=0.6, judge=judge)
    assert [layer.after for layer in pruned.report.layers] == [16, 16]
    assert judge(pruned.net) == 1


def test_pruning_repeats_itself() -> None:
    first, second = (prune(branched(), PICTURES, method="sensitivity", share=0.5, judge=least_wanted) for _ in range(2))
    assert state(first.net) == state(second.net)
    assert first.report == second.report


def test_layers_kept_by_name_stay_whole_with_all_that_hangs_on_them() -> None:
    report = prune(branched(), PICTURES, method="magnitude", share=0.3, keep=("depthwise", "left")).report
    whole = {each.name: each.why for each in report.whole}
    assert sorted(whole.values()) == ["kept by name", "kept by name", "they are the network's outputs"]
    assert {name for layer in report.layers for name in layer.layers} == {"squeeze", "right", "joint", "hidden"}
    with pytest.raises(CompileError, match="no layer 'lef' to keep"):
        prune(branched(), PICTURES, method="magnitude", share=0.3, keep=("lef",))


def test_a_frozen_network_is_pruned_and_stays_frozen() -> None:
    net = branched()
    net.stem.weight.requires_grad_(False)
    with torch.inference_mode():
        smaller = prune(net, PICTURES, method="magnitude", share=0.3).net
    frozen = [name for name, parameter in smaller.named_parameters() if not parameter.requires_grad]
    assert frozen == ["stem.weight"]


def test_what_the_network_cannot_run_without_stays_whole() -> None:
    class Fixed(nn.Module):  # type: ignore[misc]
        """Its reshaping has the number of channels written in."""

        def __init__(self) -> None:
            super().__init__()
            self.conv, self.fixed, self.head = nn.Conv2d(3, 32, 3), nn.Conv2d(32, 16, 1), nn.Linear(8, 10)

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            pooled = self.fixed(torch.relu(self.conv(inputs))).mean((2, 3))
            outputs: torch.Tensor = self.head(pooled.view(-1, 2, 8).sum(dim=1))
            return outputs

    report = prune(Fixed(), PICTURES, method="magnitude", share=0.5).report
    assert [layer.layers for layer in report.layers] == [("conv",)]
    assert [(each.name, "does not run" in each.why) for each in report.whole] == [("fixed", True), ("head", False)]


def test_grouped_convolutions_lose_the_same_from_every_group() -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 48, 1),
        nn.ReLU(),
        nn.Conv2d(48, 48, 3, groups=3),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(48, 10),
    )
    pruned = prune(net, PICTURES, method="magnitude", share=0.5)
    assert [layer.after for layer in pruned.report.layers] == [24, 24]
    assert pruned.net[2].weight.shape == (24, 8, 3, 3)


def test_a_network_of_the_pruned_form_takes_the_pruned_weights() -> None:
    pruned = prune(branched(), PICTURES, method="magnitude", share=0.4)
    fresh = pruned_form(branched(seed=1), PICTURES, pruned.report)
    fresh.load_state_dict(pruned.net.state_dict())
    assert np.array_equal(outputs(fresh, PICTURES), outputs(pruned.net, PICTURES))


@pytest.mark.parametrize("share", [0, 1, -0.1, 1.5, math.nan])
@pytest.mark.parametrize("method", ["magnitude", "unstructured"])
def test_shares_that_are_none_are_refused(method: Method, share: float) -> None:
    with pytest.raises(CompileError, match="above 0 and below 1"):
        prune(branched(), PICTURES, method=method, share=share)


@pytest.mark.parametrize(
    ("net", "share", "found"),
    [
        (lambda: nn.Sequential(nn.Flatten(), nn.Linear(1024, 10)), 0.5, "Nothing can be pruned.*outputs"),
        (lambda: nn.Flatten(), 0.5, "Nothing can be pruned.*no convolution"),
        (nets.student, 0.9, "at most .* can go"),
        (nets.student, 0.01, "less than half a step"),
    ],
)
def test_where_nothing_or_too_much_would_go_it_says_what_to_ask_for(
    net: Callable[[], nn.Module], share: float, found: str
) -> None:
    with pytest.raises(CompileError, match=found):
        prune(net(), DIGITS, method="magnitude", share=share)


def test_sensitivity_needs_samples() -> None:
    with pytest.raises(CompileError, match="judge_by"):
        prune(branched(), PICTURES, method="sensitivity", share=0.4)
    with pytest.raises(CompileError, match="Accuracy needs a label"):
        judge_by(Arrays(PICTURES, np.array([0, 1, -1, 2])))


def test_unstructured_pruning_is_reported_as_what_it_is() -> None:
    net = branched()
    before = state(net)
    pruned = prune(net, PICTURES, method="unstructured", share=0.6)
    report = pruned.report
    assert report.after.multiply_adds == report.before.multiply_adds
    assert report.after.bytes == report.before.bytes
    assert report.after.weights == report.before.weights
    assert report.after.compressed_bytes < 0.7 * report.before.compressed_bytes
    assert report.reached == pytest.approx(0.6, abs=1e-3)
    assert "no faster" in report.summary
    assert state(net) == before
    weights = [layer.weight.detach() for layer in pruned.net.modules() if isinstance(layer, (nn.Conv2d, nn.Linear))]
    kept = torch.cat([weight[weight != 0].abs() for weight in weights])
    full = torch.cat([getattr(net, layer.name).weight.detach().flatten() for layer in report.layers]).abs()
    assert float(kept.min()) >= float(full.sort().values[: round(0.6 * len(full))].max())


def test_unstructured_pruning_refuses_to_empty_a_layer() -> None:
    net = branched()
    with torch.no_grad():
        net.squeeze.weight.mul_(1e-6)
    with pytest.raises(CompileError, match="layer squeeze without any"):
        prune(net, PICTURES, method="unstructured", share=0.6)
    kept = prune(net, PICTURES, method="unstructured", share=0.6, keep=("squeeze",)).net
    assert isinstance(kept, Branched)
    assert torch.equal(kept.squeeze.weight, net.squeeze.weight)


def test_zeros_stay_zeros_while_the_network_learns_on() -> None:
    rng = np.random.default_rng(0)
    samples = Arrays(rng.standard_normal((64, 3, 16, 16)).astype(np.float32), rng.integers(0, 10, 64))
    net = prune(branched(), PICTURES, method="unstructured", share=0.5).net
    loose = copy.deepcopy(net)
    schedule = Schedule(epochs=2, peak=1e-2, batch=32)
    with zeros_held(net):
        train(net, samples, schedule, seed=0)
    train(loose, samples, schedule, seed=0)
    assert isinstance(net, Branched)
    assert isinstance(loose, Branched)
    zeros = branched_zeros(net)
    assert zeros > 0.5 * net.inner.weight.numel() / 2
    assert branched_zeros(loose) < zeros / 2


def branched_zeros(net: Branched) -> int:
    return int((net.inner.weight == 0).sum())


groups = st.lists(st.tuples(st.integers(1, 400), st.sampled_from([1, 8, 16, 24])), min_size=1, max_size=8).map(
    lambda drawn: [Group(str(n), (str(n),), channels, step) for n, (channels, step) in enumerate(drawn)]
)


@given(groups=groups, share=st.floats(0.01, 0.99), seed=st.integers(0, 100))
def test_allotting_takes_what_is_wanted_by_whole_steps_and_never_all(
    groups: list[Group], share: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    powers = {group.name: float(rng.uniform(0.5, 4)) for group in groups}
    damage: dict[str, Damage] = {name: lambda lost, power=power: lost**power for name, power in powers.items()}  # type: ignore[misc]
    wanted = share * sum(group.channels for group in groups)
    removed = allot(groups, damage, wanted)
    for group in groups:
        left = group.channels - removed[group.name]
        assert left == group.channels or left % group.step == 0
        assert left >= min(group.step, group.channels)
    most = sum(group.most() for group in groups)
    assert abs(sum(removed.values()) - min(wanted, most)) <= max(group.step for group in groups)


def test_allotting_evenly_leaves_even_shares() -> None:
    groups = [Group(name, (name,), channels, 8) for name, channels in (("a", 64), ("b", 128), ("c", 32))]
    assert allot(groups, dict.fromkeys("abc", evenly), 112) == {"a": 32, "b": 64, "c": 16}


def test_allotting_takes_from_where_it_hurts_least() -> None:
    groups = [Group(name, (name,), 64, 8) for name in "ab"]
    hurts, spares = curve(groups[0], [16, 32, 48], [0.2, 0.5, 0.9], 0.9), curve(groups[1], [16, 32, 48], [0, 0, 0], 0.9)
    assert allot(groups, {"a": hurts.damage, "b": spares.damage}, 48) == {"a": 0, "b": 48}
    assert allot(groups, {"a": hurts.damage, "b": spares.damage}, 64) == {"a": 16, "b": 48}


def test_a_lucky_gain_does_not_count_as_one() -> None:
    group = Group("a", ("a",), 64, 8)
    assert curve(group, [16, 32, 48], [0.1, -0.05, 0.2], 0.9).drops == (0, 0.1, 0.1, 0.2, 0.9)
    assert curve(group, [16, 32, 48], [-0.1, 0, 0.2], 0.9).drops == (0, 0, 0, 0.2, 0.9)
