"""Spelled-out attention becomes one operator that gives the same answers, and what only looks like it is left alone."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from vivace.core.errors import NotApplicable
from vivace.core.facts import Fact
from vivace.core.program import Form, Model
from vivace.runtimes import capture, eager, store
from vivace.runtimes.graphs import counts
from vivace.techniques.rewrite.fuse_attention import FUSED, FuseAttention
from vivace.testing import tiny


def _draw(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


class Layers(nn.Module):
    """Query, key and value layers of 4 heads of 4 features each."""

    def __init__(self):
        super().__init__()
        self.query, self.key, self.value, self.out = (nn.Linear(16, 16) for _ in range(4))
        self.drop = nn.Dropout(0.1)

    def heads(self, x):
        return x.view(x.shape[0], x.shape[1], 4, 4).permute(0, 2, 1, 3)

    def forward(self, x, *rest):
        mixed = self.mix(*(self.heads(layer(x)) for layer in (self.query, self.key, self.value)), *rest)
        return self.out(mixed.permute(0, 2, 1, 3).reshape(x.shape))


class Bert(Layers):
    def mix(self, q, k, v, mask):
        scores = torch.matmul(q, k.transpose(-1, -2)) / math.sqrt(4)
        scores = scores + (1.0 - mask[:, None, None, :]) * torch.finfo(scores.dtype).min
        return torch.matmul(self.drop(functional.softmax(scores, dim=-1)), v)


class Gpt(Layers):
    def __init__(self):
        super().__init__()
        self.register_buffer("past", torch.tril(torch.ones(8, 8)).view(1, 1, 8, 8))

    def mix(self, q, k, v):
        scores = (q @ k.transpose(-2, -1)) * (1.0 / math.sqrt(k.size(-1)))
        length = q.size(-2)
        scores = scores.masked_fill(self.past[:, :, :length, :length] == 0, float("-inf"))
        return self.drop(functional.softmax(scores, dim=-1)) @ v


class AddedCausal(Layers):
    def mix(self, q, k, v):
        mask = torch.full((8, 8), float("-inf")).triu(1)
        return torch.softmax(q @ k.mT * 0.5 + mask, -1) @ v


class Window(Layers):
    """A constant mask that is not causal: each token sees its neighbours."""

    def mix(self, q, k, v):
        near = (torch.arange(8)[:, None] - torch.arange(8)).abs() < 3
        scores = torch.where(near, q @ k.mT * 0.5, torch.tensor(-1e30))
        return torch.softmax(scores, -1) @ v


class ScaledAfterTheMask(Layers):
    def mix(self, q, k, v, bias):
        return torch.softmax((q @ k.mT - bias) * 0.5, -1) @ v


class TwoMasks(Layers):
    """A learned bias for each head, and keys to leave out."""

    def __init__(self):
        super().__init__()
        self.bias = nn.Parameter(_draw(4, 8, 8))

    def mix(self, q, k, v, hidden):
        scores = self.bias + q @ k.mT / 2
        return torch.softmax(scores.masked_fill(hidden[:, None, None], -torch.inf), -1) @ v


class ByEinsum(nn.Module):
    """Heads stay in the third dimension."""

    def forward(self, q, k, v):
        weights = torch.einsum("bqhd,bkhd->bhqk", q, k).mul(0.5).softmax(-1)
        return torch.einsum("bhqk,bkhd->bqhd", weights, v)


class Bart(nn.Module):
    """Batch and heads are one dimension, but for the mask."""

    def forward(self, q, k, v, mask):
        batch, heads, length, size = q.shape
        q, k, v = ((x * s).reshape(batch * heads, length, size) for x, s in ((q, 0.5), (k, 1.0), (v, 1.0)))
        scores = torch.bmm(q, k.transpose(1, 2)).view(batch, heads, length, length) + mask
        weights = torch.softmax(scores.view(batch * heads, length, length), dim=-1)
        return torch.bmm(weights, v).view(batch, heads, length, size)


class MultiQuery(nn.Module):
    def forward(self, q, k, v):
        weights = torch.matmul(q, k.unsqueeze(1).transpose(-1, -2)) / 4
        return torch.matmul(torch.softmax(weights, dim=-1, dtype=torch.float32).to(q.dtype), v.unsqueeze(1))


class GroupedQuery(nn.Module):
    def forward(self, q, k, v):
        k, v = (x.repeat_interleave(2, dim=1) for x in (k, v))
        return torch.softmax(q @ k.mT * k.shape[-1] ** -0.5, -1) @ v


class OneHead(nn.Module):
    def forward(self, q, k, v):
        return torch.bmm(torch.softmax(torch.bmm(q, k.transpose(1, 2)) * 0.3, 2), v)


class LearnedQueries(nn.Module):
    """Queries that are weights, the same for every sample."""

    def __init__(self):
        super().__init__()
        self.queries = nn.Parameter(_draw(1, 2, 3, 8))

    def forward(self, k, v):
        return torch.softmax(self.queries @ k.mT / 3, -1) @ v


TOKENS = _draw(2, 8, 16)
HEADS = tuple(_draw(2, 4, 6, 8) + i for i in range(3))
FEW = (_draw(2, 2, 6, 8), _draw(2, 2, 6, 8) - 1)
SPELLINGS = {
    "bert": (Bert, (TOKENS, (_draw(2, 8) > -1).float().index_fill(1, torch.tensor(0), 1.0))),
    "gpt": (Gpt, (TOKENS,)),
    "added causal": (AddedCausal, (TOKENS,)),
    "window": (Window, (TOKENS,)),
    "scaled after the mask": (ScaledAfterTheMask, (TOKENS, _draw(2, 1, 8, 8))),
    "two masks": (TwoMasks, (TOKENS, (_draw(2, 8) > 1).index_fill(1, torch.tensor(0), False))),
    "einsum": (ByEinsum, HEADS),
    "bart": (Bart, (*HEADS, _draw(2, 1, 6, 6))),
    "multi-query": (MultiQuery, (HEADS[0], HEADS[1][:, 0], HEADS[2][:, 1])),
    "grouped-query": (GroupedQuery, (HEADS[0], *FEW)),
    "one head": (OneHead, tuple(x[:, 0] for x in HEADS)),
    "learned queries": (LearnedQueries, FEW),
}


def _model(kind, inputs):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = kind().eval()
    return module, capture.capture(module, inputs).model


def _calls(program):
    return [node for node in program.graph.nodes if node.op == "call_function"]


def _fused(program):
    return [node for node in _calls(program) if node.target is FUSED]


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_spelled_out_attention_becomes_one_operator_with_the_same_answers(spelling, tmp_path):
    kind, inputs = SPELLINGS[spelling]
    module, model = _model(kind, inputs)
    more = [torch.cat([leaf, leaf.flip(0), leaf[:1]]) for leaf in inputs]

    after = FuseAttention().apply(model, None)

    store.save(after, tmp_path / "program")
    again = store.read_model(tmp_path / "program").program
    assert Fact.HAS_WRITTEN_ATTENTION in counts.facts_of(model)
    assert len(_fused(again)) == 1 and not any("softmax" in str(node.target) for node in _calls(again))
    with torch.no_grad():
        for call in (inputs, more):
            torch.testing.assert_close(eager.run_flat(again, call)[0], module(*call), rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("spelling", ["gpt", "added causal"])
def test_a_mask_that_is_causal_by_its_values_becomes_a_flag(spelling):
    _, model = _model(*SPELLINGS[spelling])

    (node,) = _fused(FuseAttention().apply(model, None).program)

    assert node.args[3:] == (None, 0.0, True)


@pytest.mark.parametrize("spelling", ["window", "bert", "two masks"])
def test_another_mask_stays_a_mask(spelling):
    _, model = _model(*SPELLINGS[spelling])

    (node,) = _fused(FuseAttention().apply(model, None).program)

    assert node.args[3] is not None and node.args[5] is False


def test_the_scale_is_the_product_of_what_stood_before_and_after_the_mask():
    _, model = _model(*SPELLINGS["scaled after the mask"])

    (node,) = _fused(FuseAttention().apply(model, None).program)

    assert node.kwargs["scale"] == 0.5


@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")
def test_a_graph_of_core_operators_is_recognized_too():
    module, model = _model(*SPELLINGS["bert"])
    decomposed = model.program.run_decompositions()
    assert torch.ops.aten.bmm.default in [node.target for node in _calls(decomposed)]

    after = FuseAttention().apply(Model(Form.TORCH, decomposed, model.signature), None).program

    assert len(_fused(after)) == 1
    with torch.no_grad():
        torch.testing.assert_close(
            eager.run_flat(after, SPELLINGS["bert"][1])[0], module(*SPELLINGS["bert"][1]), rtol=2e-5, atol=2e-5
        )


def test_every_layer_is_rewritten_and_keeps_the_names_of_its_modules():
    module = nn.Sequential(Gpt(), Gpt()).eval()
    model = capture.capture(module, (TOKENS,)).model

    after = FuseAttention().apply(model, None).program

    stacks = [list(node.meta["nn_module_stack"].values())[-1][0] for node in _fused(after)]
    assert stacks == ["module.0", "module.1"]
    with torch.no_grad():
        torch.testing.assert_close(eager.run_flat(after, [TOKENS])[0], module(TOKENS), rtol=2e-5, atol=2e-5)


class OverTheQueries(nn.Module):
    def forward(self, q, k, v):
        return torch.softmax(q @ k.mT * 0.3, dim=-2) @ v


class ProbabilitiesReturned(nn.Module):
    def forward(self, q, k, v):
        weights = torch.softmax(q @ k.mT * 0.3, dim=-1)
        return weights @ v, weights


class ScoresReturned(nn.Module):
    def forward(self, q, k, v):
        scores = q @ k.mT * 0.3
        return torch.softmax(scores, dim=-1) @ v, scores


class ScoresAddedToThemselves(nn.Module):
    def forward(self, q, k, v):
        scores = q @ k.mT
        return torch.softmax(scores + scores, dim=-1) @ v


class ProbabilitiesTimesThemselves(nn.Module):
    def forward(self, q, k, v):
        weights = torch.softmax(q @ k.mT, dim=-1)
        return weights @ weights


class TemperatureOverAMask(nn.Module):
    """The mask is multiplied too, by a number whose sign is not known."""

    def forward(self, q, k, v):
        return torch.softmax((q @ k.mT + q[:, :1, :, :1]) * v[:, :, :1, :1], dim=-1) @ v


class TemperatureOfEachKey(nn.Module):
    def forward(self, q, k, v):
        return torch.softmax(q @ k.mT * v[..., 0].unsqueeze(-2), dim=-1) @ v


class ProductThatTakesAway(nn.Module):
    def forward(self, q, k, v):
        return torch.softmax(torch.baddbmm(v[:, 0, :, :6], q[:, 0], k[:, 0].mT, alpha=-1), -1) @ v[:, 0]


class TurnedAndMasked(nn.Module):
    def forward(self, q, k, v):
        return torch.softmax(k @ q.mT + q[..., :1], dim=-2).mT @ v


class NegativeScale(nn.Module):
    def forward(self, q, k, v):
        return torch.softmax(q @ k.mT * -0.3, dim=-1) @ v


class MildFill(nn.Module):
    """A value that does not hide: a query that sees nothing would be answered otherwise."""

    def forward(self, q, k, v):
        return torch.softmax((q @ k.mT).masked_fill(q[..., :1] > 0, -5.0), dim=-1) @ v


class CappedScores(nn.Module):
    def forward(self, q, k, v):
        return torch.softmax(torch.tanh(q @ k.mT) * 30, dim=-1) @ v


class RealDropout(nn.Module):
    def forward(self, q, k, v):
        return functional.relu(torch.softmax(q @ k.mT, dim=-1)) @ v


class MixedHeads(nn.Module):
    """Talking heads: probabilities are mixed over heads."""

    def forward(self, q, k, v):
        return torch.einsum("bhqk,bgkd->bgqd", torch.softmax(q @ k.mT, -1), v)


class Gate(nn.Module):
    def forward(self, q, k, v):
        return torch.softmax(q, dim=-1) * k + v


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (OverTheQueries, "not over the last"),
        (ProbabilitiesReturned, "probabilities softmax are used elsewhere"),
        (ScoresReturned, "scores mul are used elsewhere"),
        (ScoresAddedToThemselves, "does not add a mask"),
        (ProbabilitiesTimesThemselves, "probabilities softmax are used elsewhere"),
        (TemperatureOverAMask, "stands between"),
        (TemperatureOfEachKey, "stands between"),
        (ProductThatTakesAway, "multiplies the scores by -1"),
        (TurnedAndMasked, "shapes around softmax"),
        (NegativeScale, "stands between"),
        (MildFill, "does not hide"),
        (CappedScores, "stands between"),
        (RealDropout, "not multiplied by values"),
        (MixedHeads, "not multiplied by values"),
        (Gate, "not multiplied by values"),
    ],
)
def test_what_only_looks_like_attention_is_left_alone_with_the_reason(kind, reason):
    _, model = _model(kind, HEADS)

    with pytest.raises(NotApplicable, match=reason):
        FuseAttention().apply(model, None)


def test_attention_that_is_fused_already_is_told():
    module = tiny.tiny("encoder")
    model = capture.capture(module.model(), module.inputs()).model

    with pytest.raises(NotApplicable, match="already"):
        FuseAttention().apply(model, None)

    assert Fact.HAS_WRITTEN_ATTENTION not in counts.facts_of(model)


def test_the_program_that_was_given_stays_as_it_is():
    _, model = _model(*SPELLINGS["gpt"])
    before = [node.name for node in model.program.graph.nodes]

    FuseAttention().apply(model, None)

    assert [node.name for node in model.program.graph.nodes] == before
