"""Channels that nothing needs are really taken out, with all that depends on them, and the answers stay the same."""

import pytest
import torch
from torch import nn

from vivace.core.errors import NotApplicable, UsageError
from vivace.runtimes import capture, store
from vivace.runtimes.graphs import counts
from vivace.techniques.graph import GraphEdit
from vivace.techniques.sparsity.channel_groups import groups_of
from vivace.techniques.sparsity.channel_pruning import ChannelPruning
from vivace.testing import tiny

GENERATOR = torch.Generator().manual_seed(0)
IMAGE = torch.randn(2, 3, 8, 8, generator=GENERATOR)
DEAD = torch.arange(0, 64, 4)
"""A quarter of the 64 channels: those that the tests make worthless."""


def _kill(*layers):
    """Make the dead channels worthless: no weight leads to them, and none from them."""
    with torch.no_grad():
        for layer, outgoing in layers:
            target = layer.weight if not outgoing else layer.weight.movedim(1, 0)
            per_channel = len(target) // 64
            for offset in range(per_channel):
                target[DEAD * per_channel + offset] = 0
            if not outgoing and layer.bias is not None:
                layer.bias[DEAD] = 0


def _settled(module):
    for child in module.modules():
        if isinstance(child, nn.BatchNorm2d):
            nn.init.uniform_(child.running_var, 0.5, 2.0)
            nn.init.uniform_(child.bias, -0.5, 0.5)
    return module.eval()


def _chain():
    net = nn.Sequential(
        *(nn.Conv2d(3, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(inplace=True)),
        *(nn.Conv2d(64, 64, 3, padding=1, groups=64), nn.Hardswish()),
        *(nn.Conv2d(64, 64, 3, bias=False), nn.SiLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(64 * 9, 5)),
    )
    _kill((net[0], False), (net[3], False), (net[5], True), (net[5], False), (net[9], True))
    return _settled(net)


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.inner, self.back = nn.Conv2d(3, 64, 1), nn.Conv2d(64, 64, 3, padding=1), nn.Conv2d(64, 64, 1)
        self.norm, self.head = nn.BatchNorm2d(64), nn.Linear(64, 5)

    def forward(self, x):
        x = self.stem(x)
        x = torch.relu(x + self.norm(self.back(torch.relu(self.inner(x)))))
        return self.head(x.mean((2, 3)))


def _residual():
    net = Residual()
    for layer in (net.stem, net.inner, net.back):
        _kill((layer, False))
    for layer in (net.inner, net.back, net.head):
        _kill((layer, True))
    return _settled(net)


def _linears():
    net = nn.Sequential(nn.Linear(3, 64), nn.GELU(), nn.Dropout(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 5))
    _kill((net[0], False), (net[3], True), (net[3], False), (net[5], True))
    return net.eval()


@pytest.mark.parametrize(
    ("build", "x"),
    [(_chain, IMAGE), (_residual, IMAGE), (_linears, torch.randn(2, 7, 3, generator=GENERATOR))],
    ids=["chain with depthwise and flattening", "residual sum", "linear layers of three dimensions"],
)
def test_worthless_channels_go_and_the_answers_stay(build, x, tmp_path):
    net = build()
    model = capture.capture(net, (x,)).model

    store.save(ChannelPruning(share=0.25).apply(model, None), tmp_path / "program")

    weights = store.read_model(tmp_path / "program").program.state_dict.values()
    more = torch.cat([x, x.flip(0), x])
    with torch.no_grad():
        torch.testing.assert_close(store.load(tmp_path / "program")(more), net(more), rtol=1e-4, atol=1e-5)
    assert not any(64 in weight.shape for weight in weights)
    assert any(48 in weight.shape for weight in weights)


def test_the_work_of_a_call_falls_by_about_the_square():
    model = capture.capture(_residual(), (IMAGE,)).model

    before, after = (counts.cost_of(m, [IMAGE]) for m in (model, ChannelPruning(share=0.5).apply(model, None)))

    assert 0.22 < after.flops / before.flops < 0.3
    assert 0.22 < after.weight_bytes / before.weight_bytes < 0.3


class AnswersItsHidden(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(3, 64), nn.Linear(64, 5)

    def forward(self, x):
        hidden = torch.relu(self.first(x))
        return hidden, self.second(hidden)


class SharedWeights(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(3, 64), nn.Linear(64, 64)

    def forward(self, x):
        return self.second(torch.relu(self.second(self.first(x)))).sum(-1)


class Normalized(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.norm, self.second = nn.Linear(3, 64), nn.LayerNorm(64), nn.Linear(64, 5)

    def forward(self, x):
        return self.second(self.norm(self.first(x)))


class Reshaped(nn.Module):
    """Takes the channels apart, as attention does with its heads."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(3, 64), nn.Linear(16, 5)

    def forward(self, x):
        return self.second(self.first(x).reshape(-1, 4, 16))


class Scaled(nn.Module):
    """Multiplies by a parameter a channel, which is not followed."""

    def __init__(self):
        super().__init__()
        self.first, self.scale, self.second = nn.Linear(3, 64), nn.Parameter(torch.ones(64)), nn.Linear(64, 5)

    def forward(self, x):
        return self.second(self.first(x) * self.scale)


@pytest.mark.parametrize("kind", [AnswersItsHidden, SharedWeights, Normalized, Reshaped, Scaled])
def test_channels_that_something_else_sees_stay(kind):
    model = capture.capture(kind().eval(), (torch.randn(2, 3),)).model

    with pytest.raises(NotApplicable, match="must stay"):
        ChannelPruning(share=0.5).apply(model, None)


def test_a_residual_sum_makes_one_group_of_its_layers():
    edit = GraphEdit(capture.capture(_residual(), (IMAGE,)).model.program)

    free = [group for group in groups_of(edit) if group.is_free]

    assert sorted(len(group.producers) for group in free) == [1, 2]


def test_few_channels_are_left_alone():
    model = capture.capture(tiny.tiny("mlp").model(), tiny.tiny("mlp").inputs()).model

    with pytest.raises(NotApplicable, match="48 channels or more"):
        ChannelPruning(share=0.5).apply(model, None)


@pytest.mark.parametrize("share", [0, 1, -0.5, 2])
def test_an_impossible_share_is_refused(share):
    with pytest.raises(UsageError, match="between 0 and 1"):
        ChannelPruning(share=share)


def test_the_bytes_of_the_layers_that_shrank_are_told():
    before = capture.capture(_chain(), (IMAGE,)).model

    after = ChannelPruning(share=0.25).apply(before, None)

    told = {one.layer: (one.form, one.dense_bytes, one.stored_bytes) for one in after.stored_weights}
    assert told == {
        "0": ("fewer channels", 4 * 64 * 3 * 9, 4 * 48 * 3 * 9),
        "3": ("fewer channels", 4 * 64 * 9, 4 * 48 * 9),
        "5": ("fewer channels", 4 * 64 * 64 * 9, 4 * 48 * 48 * 9),
        "9": ("fewer channels", 4 * 64 * 9 * 5, 4 * 48 * 9 * 5),
    }
