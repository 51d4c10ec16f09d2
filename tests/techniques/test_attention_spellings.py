"""Rarer spellings of attention are rewritten too, and answer as before where a query sees no key at all."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from vivace.core.errors import NotApplicable
from vivace.core.facts import Fact
from vivace.runtimes import capture, eager
from vivace.runtimes.graphs import counts
from vivace.techniques.rewrite.fuse_attention import FUSED, FuseAttention

PAST = torch.ones(5, 5, dtype=torch.bool).tril()
HIDDEN = torch.tensor([[True] * 5, [True, True, False, False, True]])
"""The first sample sees nothing."""
Q, K, V = (torch.randn(2, 2, 5, 8, generator=torch.Generator().manual_seed(seed)) for seed in range(3))
LOWEST = torch.finfo(torch.float32).min


class Masked(nn.Module):
    """Attention whose scores a function masks."""

    def __init__(self, mask):
        super().__init__()
        self.mask = mask

    def forward(self, q, k, v, hidden):
        return torch.softmax(self.mask(q @ k.mT / 2, hidden[:, None, None]), -1) @ v


def _rewritten(mask, dtype=torch.float32):
    inputs = (Q.to(dtype), K.to(dtype), V.to(dtype), HIDDEN)
    module = Masked(mask).eval()
    after = FuseAttention().apply(capture.capture(module, inputs).model, None).program
    (node,) = [node for node in after.graph.nodes if node.target is FUSED]
    with torch.no_grad():
        return node, eager.run_flat(after, inputs)[0], module(*inputs)


def _filled(*values):
    """Future keys are filled with the first value, then those to leave out with the second."""
    return lambda s, hidden: s.masked_fill(~PAST, values[0]).masked_fill(hidden, values[1])


def _added(value):
    return lambda s, hidden: s + hidden.float() * value


@pytest.mark.parametrize(
    "mask",
    [
        lambda s, hidden: s.masked_fill(hidden, -1e4),
        lambda s, hidden: s.masked_fill(hidden, -1e9),
        _filled(-1e4, -1e4),
        _filled(-1e9, -1e9),
        _filled(-1e9, LOWEST),
        _filled(-math.inf, -1e9),
        _filled(-1e9, -math.inf),
        lambda s, hidden: (s + hidden.float() * -1e9).masked_fill(~PAST, -1e9),
        lambda s, hidden: s.masked_fill(~PAST, -1e9) + hidden.float() * -1e9,
    ],
)
def test_a_query_that_sees_nothing_is_answered_as_before(mask):
    node, got, want = _rewritten(mask)

    assert node.args[3] is not None
    answered = ~want.isnan()
    torch.testing.assert_close(got[answered], want[answered], rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize(
    ("mask", "told"),
    [
        (lambda s, hidden: s.masked_fill(hidden, -5e3), "-5000.0, which does not hide"),
        (lambda s, hidden: s.masked_fill(hidden, -1e4) / 8, "-10000.0, which does not hide"),
        (_filled(-1e4, -1e9), "-10000 .* not low enough beside another mask"),
        (lambda s, hidden: s.masked_fill(hidden, -1e4) + PAST * 3.0, "-10000 .* not low enough beside another mask"),
    ],
)
def test_a_value_that_only_hides_where_something_is_seen_is_left_alone(mask, told):
    with pytest.raises(NotApplicable, match=told):
        _rewritten(mask)


def test_in_float16_a_finite_value_is_replaced_by_a_flag_only():
    with pytest.raises(NotApplicable, match="float16"):
        _rewritten(lambda s, hidden: s.masked_fill(hidden, -1e4), torch.float16)

    node, got, want = _rewritten(lambda s, hidden: s.masked_fill(~PAST, -1e4), torch.float16)
    assert node.args[3:] == (None, 0.0, True)
    torch.testing.assert_close(got, want, rtol=4e-3, atol=4e-3)


def test_in_bfloat16_a_query_that_sees_nothing_is_answered_as_before():
    _, got, want = _rewritten(lambda s, hidden: s.masked_fill(hidden, -1e4), torch.bfloat16)

    torch.testing.assert_close(got, want, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize(
    "mask",
    [
        lambda s, hidden: s.masked_fill(~PAST, -1e4),
        lambda s, hidden: s + torch.where(PAST, 0, -100000),
        lambda s, hidden: s * PAST.float() - 1e10 * (1 - PAST.float()),
    ],
    ids=["-1e4", "whole numbers", "gpt-2"],
)
def test_a_mask_that_is_causal_by_its_values_becomes_a_flag(mask):
    node, got, want = _rewritten(mask)

    assert node.args[3:] == (None, 0.0, True)
    torch.testing.assert_close(got, want, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize(
    "mask",
    [
        lambda s, hidden: s + hidden.long() * -7,
        lambda s, hidden: s - hidden.int(),
        lambda s, hidden: s * PAST.flip(0).float() - 1e10 * (1 - PAST.flip(0).float()),
    ],
    ids=["whole numbers", "subtracted", "gpt-2, some query sees one key"],
)
def test_whole_numbers_and_ones_and_zeros_mask_too(mask):
    node, got, want = _rewritten(mask)

    assert node.args[3] is not None
    torch.testing.assert_close(got, want, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize(
    "mask",
    [
        lambda s, hidden: s * hidden.float() - 1e10 * (1 - hidden.float()),  # an input's values are not known
        lambda s, hidden: s * PAST.float() * 2 - 1e10 * (2 - PAST.float() * 2),
        lambda s, hidden: s * PAST.float() - 1e10 * (1 - PAST.float().mT),
    ],
)
def test_products_with_what_is_not_known_to_be_ones_and_zeros_are_left_alone(mask):
    with pytest.raises(NotApplicable, match="does not add a mask"):
        _rewritten(mask)


def bloom(q, k, v, alibi, mask):
    """A bias is added by the product itself, over batch and heads in one; a mask once they are apart."""
    q, k, v = (x.flatten(0, 1) for x in (q, k, v))
    scores = torch.baddbmm(alibi.flatten(0, 1), q, k.mT, beta=0.5, alpha=0.25).view(-1, 2, 5, 5) + mask
    return torch.bmm(torch.softmax(scores, -1).view(-1, 5, 5), v).view(-1, 2, 5, 8)


def merged_bias(q, k, v, bias):
    """As above, but the bias is made with batch and heads in one."""
    scores = torch.baddbmm(bias.reshape(-1, 1, 5) * 2, q.flatten(0, 1), k.flatten(0, 1).mT)
    return torch.softmax(scores.unflatten(0, (-1, 2)), -1) @ v


def into_nothing(q, k, v):
    """What the product is added to is not read."""
    scores = torch.baddbmm(q.new_full((1, 1, 1), torch.nan), q[:, 0], k[:, 0].mT, beta=0, alpha=0.3)
    return torch.softmax(scores, -1) @ v[:, 0]


def one_sequence(q, k, v, bias):
    """Of two dimensions, with a bias for each key."""
    return torch.softmax(torch.addmm(bias, q, k.T, alpha=0.5), -1) @ v


def any_batch(q, k, v):
    """Einsums that do not name the batch; keys have less of it."""
    weights = torch.einsum("...id,...jd->...ij", q, k).mul(0.5).softmax(-1)
    return torch.einsum("b...ij,b...jd->b...id", weights, v)


def no_arrow(q, k, v):
    """By the alphabet, the result is [..., i, j]."""
    return torch.softmax(torch.einsum("...iz,...jz", q, k), -1) @ v


def swin_v2(q, k, v, temperature, bias):
    """Cosines, a learned temperature for each head, a bias."""
    scores = functional.normalize(q, dim=-1) @ functional.normalize(k, dim=-1).mT
    return torch.softmax(scores * temperature.clamp(max=3.0).exp() + bias, -1) @ v


def divided_by_an_input(q, k, v, temperature):
    """Of any sign."""
    return torch.softmax(q @ k.mT / 2 / temperature, -1) @ v


def turned(q, k, v):
    """Scores lie the other way round until they meet the values."""
    return torch.softmax(k @ q.mT * 0.3, dim=-2).transpose(2, 3) @ v


class Spelled(nn.Module):
    """A function as a module, with its last inputs as weights of its own."""

    def __init__(self, function, *weights):
        super().__init__()
        self.function, self.count = function, len(weights)
        for number, weight in enumerate(weights):
            self.register_parameter(f"weight{number}", nn.Parameter(weight))

    def forward(self, *inputs):
        return self.function(*inputs, *(getattr(self, f"weight{number}") for number in range(self.count)))


BIAS = torch.randn(2, 2, 5, 5, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize(
    ("function", "inputs", "weights"),
    [
        (bloom, (Q, K, V, BIAS[:, :, :1], BIAS[:, :1]), ()),
        (merged_bias, (Q, K, V, BIAS[:, :, 0]), ()),
        (into_nothing, (Q, K, V), ()),
        (one_sequence, (Q[0, 0], K[0, 0], V[0, 0], BIAS[0, 0, 0]), ()),
        (any_batch, (Q, K[:, :1], V), ()),
        (no_arrow, (Q, K, V), ()),
        (swin_v2, (Q, K, V), (torch.tensor([1.0, -2.0]).view(2, 1, 1), BIAS[0])),
        (divided_by_an_input, (Q, K, V, torch.tensor([0.5, -2.0]).view(2, 1, 1, 1)), ()),
        (turned, (Q, K, V), ()),
    ],
)
def test_a_rarer_spelling_becomes_one_operator_with_the_same_answers(function, inputs, weights):
    module = Spelled(function, *weights).eval()

    after = FuseAttention().apply(capture.capture(module, inputs).model, None).program

    names = [str(node.target) for node in after.graph.nodes]
    assert names.count(str(FUSED)) == 1 and not any("softmax" in name for name in names)
    with torch.no_grad():
        torch.testing.assert_close(eager.run_flat(after, inputs)[0], module(*inputs), rtol=2e-5, atol=2e-5)


def _over_the_largest(scores):
    powers = torch.exp(scores - scores.amax(-1, keepdim=True))
    return powers / powers.sum(-1, keepdim=True)


def _over_the_largest_found(scores):
    powers = (scores - scores.max(dim=-1, keepdim=True).values.detach()).exp()
    return powers / torch.sum(powers, dim=3, keepdim=True)


def _over_its_sum(scores):
    powers = scores.exp()
    return powers / powers.sum(dim=-1, keepdim=True)


SPELLED = {
    "largest": _over_the_largest,
    "found": _over_the_largest_found,
    "sum": _over_its_sum,
    "logarithm": lambda scores: functional.log_softmax(scores, dim=-1).exp(),
    "logsumexp": lambda scores: (scores - torch.logsumexp(scores, -1, keepdim=True)).exp(),
}


class WrittenOut(nn.Module):
    """Attention that writes its softmax out."""

    def __init__(self, softmax):
        super().__init__()
        self.softmax = softmax

    def forward(self, q, k, v):
        scores = (q @ k.mT / 2).masked_fill(~PAST, -math.inf)
        return self.softmax(scores) @ v


@pytest.mark.parametrize("softmax", SPELLED.values(), ids=SPELLED)
def test_a_softmax_that_is_written_out_is_rewritten_with_its_attention(softmax):
    module = WrittenOut(softmax).eval()
    model = capture.capture(module, (Q, K, V)).model
    after = FuseAttention().apply(model, None).program

    (node,) = [node for node in after.graph.nodes if node.target is FUSED]
    assert node.args[5] is True
    assert not [node for node in after.graph.nodes if getattr(node.target, "_opname", "") in ("exp", "sum", "sub")]
    assert Fact.HAS_WRITTEN_ATTENTION in counts.facts_of(model)
    torch.testing.assert_close(eager.run_flat(after, (Q, K, V))[0], module(Q, K, V), rtol=2e-5, atol=2e-5)


def _of_another_dimension(scores):
    powers = torch.exp(scores - scores.amax(-2, keepdim=True))
    return powers / powers.sum(-1, keepdim=True)


def _over_another_sum(scores):
    return torch.exp(scores) / torch.exp(2 * scores).sum(-1, keepdim=True)


def _the_other_way(scores):
    powers = torch.exp(scores)
    return powers.sum(-1, keepdim=True) / powers


def _of_all(scores):
    powers = torch.exp(scores)
    return powers / powers.sum((-1, -2), keepdim=True)


@pytest.mark.parametrize("shares", [_over_another_sum, _the_other_way, _of_all])
def test_what_only_looks_like_a_softmax_is_left_alone(shares):
    model = capture.capture(WrittenOut(shares).eval(), (Q, K, V)).model

    assert Fact.HAS_WRITTEN_ATTENTION not in counts.facts_of(model)
    with pytest.raises(NotApplicable):
        FuseAttention().apply(model, None)


def test_what_is_taken_from_scores_need_not_be_the_largest_of_the_row():
    """Whatever is the same for a row: here it is not, and the answer is kept as it was."""
    module = WrittenOut(lambda scores: _of_another_dimension(scores.clamp(min=-9.0))).eval()
    model = capture.capture(module, (Q, K, V)).model

    try:
        program = FuseAttention().apply(model, None).program
    except NotApplicable:
        program = model.program
    torch.testing.assert_close(eager.run_flat(program, (Q, K, V))[0], module(Q, K, V), rtol=2e-5, atol=2e-5)


class InPlace(nn.Module):
    """Attention whose scores are written into on their way to the softmax."""

    def __init__(self, change, shows=False):
        super().__init__()
        self.change, self.shows = change, shows

    def forward(self, q, k, v, bias):
        scores = q @ k.mT
        probabilities = torch.softmax(self.change(scores, bias), -1)
        return (probabilities @ v, scores) if self.shows else probabilities @ v


def _all_in_place(scores, bias):
    scores /= 2.0
    scores += bias
    return scores.masked_fill_(~PAST, -math.inf)


IN_PLACE = {
    "divided": lambda scores, bias: scores.div_(3.0),
    "added": lambda scores, bias: scores.add_(bias),
    "taken": lambda scores, bias: (scores * 0.5).sub_(bias),
    "filled": lambda scores, bias: scores.masked_fill_(~PAST, -1e9),
    "all": _all_in_place,
    "nothing more": lambda scores, bias: scores + bias + 0,
}
FOR_HEADS = torch.randn(2, 5, 5, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("change", IN_PLACE.values(), ids=IN_PLACE)
def test_scores_that_are_written_into_are_rewritten_too(change):
    module = InPlace(change).eval()
    after = FuseAttention().apply(capture.capture(module, (Q, K, V, FOR_HEADS)).model, None).program

    assert [node for node in after.graph.nodes if node.target is FUSED]
    torch.testing.assert_close(
        eager.run_flat(after, (Q, K, V, FOR_HEADS))[0], module(Q, K, V, FOR_HEADS), rtol=2e-5, atol=2e-5
    )


def test_scores_that_somebody_else_reads_stay_written_into():
    model = capture.capture(InPlace(_all_in_place, shows=True).eval(), (Q, K, V, FOR_HEADS)).model

    with pytest.raises(NotApplicable, match=r"stands between|used elsewhere"):
        FuseAttention().apply(model, None)


def disentangled(q, k, v, bias):
    """DeBERTa's: keys are divided before the product; batch and heads are one around it, and apart around the mask."""
    queries, keys, values = (one.reshape(-1, *one.shape[-2:]) for one in (q, k, v))
    scores = queries @ (keys.mT / math.sqrt(24)) + bias.repeat(2, 1, 1)
    weights = torch.softmax(scores.view(2, 2, 5, 5).masked_fill(~PAST, -1e9), -1)
    return torch.bmm(weights.view(-1, 5, 5), values).view(2, 2, 5, 8)


def scaled_twice(q, k, v, bias):
    """Queries and keys both carry a part of the scale."""
    return torch.softmax((q * 0.5) @ (k / 2.0).mT / 2 + bias, -1) @ v


@pytest.mark.parametrize("function", [disentangled, scaled_twice])
def test_scales_of_queries_and_keys_join_that_of_the_scores(function):
    module = Spelled(function).eval()
    after = FuseAttention().apply(capture.capture(module, (Q, K, V, FOR_HEADS)).model, None).program

    (node,) = [node for node in after.graph.nodes if node.target is FUSED]
    assert node.kwargs["scale"] == pytest.approx(1 / math.sqrt(24) if function is disentangled else 0.125)
    torch.testing.assert_close(
        eager.run_flat(after, (Q, K, V, FOR_HEADS))[0], module(Q, K, V, FOR_HEADS), rtol=2e-5, atol=2e-5
    )
