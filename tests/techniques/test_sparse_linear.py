"""Pruning and sparse products: which weights go, what is stored, what is measured, and what a bad file may not do."""

import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from vivace.core.errors import ArtifactError, NotApplicable, UsageError
from vivace.core.facts import Fact
from vivace.core.layer import StoredWeights
from vivace.core.measurement import Interval
from vivace.core.plan import Plan
from vivace.measure import kernels
from vivace.runtimes import capture, eager, store
from vivace.runtimes.graphs import counts
from vivace.runtimes.sparse import compressed
from vivace.techniques.compile.inductor import Inductor
from vivace.techniques.graph import GraphEdit
from vivace.techniques.sparsity.magnitude_pruning import MagnitudePruning, mask
from vivace.techniques.sparsity.sparse_kernels import SparseKernels

GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(8, 128, generator=GENERATOR)
WEIGHT = torch.randn(64, 96, generator=GENERATOR)


def _net():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(128, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, 10)).eval()


def _captured(net=None):
    return capture.capture(net or _net(), (X,)).model


@pytest.mark.parametrize(("pattern", "share"), [("unstructured", 0.75), ("2:4", 0.5), ("block", 0.5)])
def test_the_asked_share_of_weights_goes(pattern, share):
    assert mask(WEIGHT, share, pattern).sum() == (1 - share) * WEIGHT.numel()


def test_unstructured_pruning_is_pytorchs_own():
    layer = nn.Linear(96, 64)
    layer.weight.data = WEIGHT.clone()
    prune.l1_unstructured(layer, "weight", 0.3)

    assert torch.equal(mask(WEIGHT, 0.3, "unstructured"), layer.weight_mask.bool())


def test_two_of_each_four_inputs_stay_and_they_are_the_largest():
    kept = mask(WEIGHT, 0.5, "2:4").unflatten(1, (-1, 4))
    groups = WEIGHT.abs().unflatten(1, (-1, 4))

    assert (kept.sum(2) == 2).all()
    assert (groups.masked_fill(kept, 0).amax(2) <= groups.masked_fill(~kept, 9).amin(2)).all()


def test_the_blocks_that_go_are_the_smallest_whole_ones():
    kept = mask(WEIGHT, 0.5, "block").unflatten(1, (-1, 16)).unflatten(0, (-1, 16)).float().mean((1, 3))
    norms = WEIGHT.unflatten(1, (-1, 16)).unflatten(0, (-1, 16)).square().sum((1, 3))

    assert set(kept.flatten().tolist()) == {0.0, 1.0}
    assert norms[kept == 1].min() >= norms[kept == 0].max()


def test_sizes_that_no_block_divides_are_pruned_too():
    assert mask(torch.randn(70, 33), 0.5, "block").shape == (70, 33)
    assert mask(torch.randn(5, 7), 0.5, "2:4")[:, 4:].all()


def test_pruned_layers_keep_their_shapes_and_the_plan_says_so():
    before = _captured()
    after = MagnitudePruning(share=0.75).apply(before, None)

    weights = [value for value in after.program.state_dict.values() if value.dim() == 2]
    assert [tuple(weight.shape) for weight in weights] == [(256, 128), (128, 256), (10, 128)]
    assert [round(1 - weight.count_nonzero().item() / weight.numel(), 2) for weight in weights] == [0.75, 0.75, 0]
    assert str(Plan((MagnitudePruning(),))) == "magnitude-pruning(pruned but kept dense)"
    assert [(one.layer, one.form, one.dense_bytes, one.stored_bytes) for one in after.stored_weights] == [
        ("0", "zeros kept dense", 131072, 131072),
        ("2", "zeros kept dense", 131072, 131072),
    ]
    assert all(value.count_nonzero() == value.numel() for value in before.program.state_dict.values())


def test_a_plan_that_stores_the_zeros_away_does_not_say_that_they_are_kept():
    pruning = MagnitudePruning(share=0.95)

    assert str(Plan((pruning, SparseKernels()))) == "magnitude-pruning(share=0.95) + sparse-kernels"
    assert str(Plan((pruning, Inductor()))).startswith("magnitude-pruning(share=0.95; pruned but kept dense) + ")


def test_pruning_twice_says_that_nothing_is_left():
    with pytest.raises(NotApplicable, match="left to prune"):
        MagnitudePruning(share=0.75).apply(MagnitudePruning(share=0.75).apply(_captured(), None), None)


@pytest.mark.slow
def test_a_compiled_sparse_program_answers_the_same(sparse, tmp_path):
    store.save(Inductor(freeze=True).apply(sparse, None), tmp_path / "program")

    found = store.load(tmp_path / "program")(X)

    torch.testing.assert_close(found, eager.run_flat(sparse.program, [X])[0], rtol=1e-4, atol=1e-5)


def test_layers_that_are_small_are_not_pruned():
    with pytest.raises(NotApplicable, match="at least 512 x 512"):
        MagnitudePruning(smallest=512).apply(_captured(), None)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"pattern": "1:2"}, "unstructured, 2:4, block"),
        ({"share": 1.0}, "between 0 and 1"),
        ({"pattern": "2:4"}, "is 0.5"),
    ],
)
def test_an_impossible_setting_is_refused(settings, told):
    with pytest.raises(UsageError, match=told):
        MagnitudePruning(**settings)


def test_a_model_that_comes_pruned_is_known_by_its_zeros():
    pruned = MagnitudePruning(share=0.75).apply(_captured(), None)

    assert Fact.SPARSE_LINEAR in counts.facts_of(pruned)
    assert Fact.SPARSE_LINEAR not in counts.facts_of(_captured())


@pytest.mark.parametrize("by_columns", [True, False])
@pytest.mark.parametrize("form", ["csr", "bsr"])
@pytest.mark.parametrize("shape", [(96,), (1, 96), (3, 5, 96)])
def test_a_sparse_product_equals_the_dense_one(form, by_columns, shape):
    product, weight = compressed.operator(), torch.where(mask(WEIGHT, 0.5, "block"), WEIGHT, 0.0)
    stored = weight.to_sparse_csr() if form == "csr" else weight.to_sparse_bsr((16, 16))
    parts = stored.crow_indices().int(), stored.col_indices().int(), stored.values()
    x, bias = torch.randn(shape, generator=GENERATOR), torch.randn(64, generator=GENERATOR)

    found = product(x, *parts, bias, 64, 96, by_columns)

    exact = nn.functional.linear(x.double(), weight.double(), bias.double())
    torch.testing.assert_close(found.double(), exact, rtol=1e-4, atol=1e-4)


FIRST_IN_ITS_PROCESS = """
import torch
from torch import nn
from vivace.core.errors import NotApplicable
from vivace.runtimes import capture
from vivace.techniques.sparsity.magnitude_pruning import MagnitudePruning
from vivace.techniques.sparsity.sparse_kernels import SparseKernels

model = capture.capture(nn.Sequential(nn.Linear(128, 256)).eval(), (torch.randn(8, 128),)).model
try:
    SparseKernels().apply(MagnitudePruning(share=0.75).apply(model, None), None)
except NotApplicable:  # none of them pays here
    pass
"""


def test_who_prunes_first_in_a_process_is_told_nothing_of_betas():
    done = subprocess.run([sys.executable, "-c", FIRST_IN_ITS_PROCESS], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stderr) == (0, "")


@pytest.fixture
def every_kernel_wins(monkeypatch):
    monkeypatch.setattr(kernels, "speedup", lambda *_: Interval(2.0, 2.0, 2.0))


@pytest.fixture
def every_kernel_loses(monkeypatch):
    monkeypatch.setattr(kernels, "speedup", lambda *_: Interval(1.5, 1.04, 2.0))


@pytest.fixture
def sparse(every_kernel_wins):
    return SparseKernels().apply(MagnitudePruning(share=0.75).apply(_captured(), None), None)


def test_a_stored_sparse_program_answers_as_the_pruned_one_for_any_batch(sparse, tmp_path):
    pruned = MagnitudePruning(share=0.75).apply(_captured(), None)
    store.save(sparse, tmp_path / "program")

    program = store.load(tmp_path / "program")

    for samples in (1, 5, 64):
        x = torch.randn(samples, 128, generator=GENERATOR)
        torch.testing.assert_close(program(x), eager.run_flat(pruned.program, [x])[0], rtol=1e-4, atol=1e-5)


def test_the_file_holds_the_non_zeros_only_and_the_program_tells_their_bytes(sparse, tmp_path):
    store.save(_captured(), tmp_path / "dense")
    store.save(sparse, tmp_path / "sparse")

    nonzeros, rows = 2 * 128 * 256 // 4, 256 + 128
    stored = 8 * nonzeros + 4 * (rows + 2)
    assert f"2 of 2 layers, {stored} bytes of weights for {4 * 2 * 128 * 256}" in sparse.lineage[-1]
    told = StoredWeights.of(store.describe(tmp_path / "sparse").stored_weights)
    assert (told.layers, told.dense_bytes, told.stored_bytes) == (2, 4 * 2 * 128 * 256, stored)
    assert [(one.layer, one.form) for one in told.each] == [("0", "CSR"), ("2", "CSR")]
    sizes = [(tmp_path / name / "model.pt2").stat().st_size for name in ("dense", "sparse")]
    assert sizes[0] - sizes[1] == pytest.approx(4 * 2 * 128 * 256 - stored, abs=8000)  # the graph's text differs


def test_a_kernel_that_is_not_surely_faster_is_never_taken(every_kernel_loses):
    with pytest.raises(NotApplicable, match="no sparse kernel was faster: the best of 2 layers"):
        SparseKernels().apply(MagnitudePruning(share=0.75).apply(_captured(), None), None)


def test_a_kernel_that_won_by_luck_is_measured_again_and_refused(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    lucky = iter([Interval(2.0, 2.0, 2.0), *[Interval(1.0, 1.0, 1.0)] * 100])
    monkeypatch.setattr(kernels, "speedup", lambda *_: next(lucky))

    with pytest.raises(NotApplicable, match=r"only 1\.00 times"):
        SparseKernels().apply(MagnitudePruning(share=0.75).apply(_captured(), None), None)


def test_a_dense_model_has_no_layer_for_sparse_kernels():
    with pytest.raises(NotApplicable, match="half zeros"):
        SparseKernels().apply(_captured(), None)


def test_an_almost_empty_layer_is_measured_to_be_faster():
    net = nn.Linear(1024, 1024).eval()
    net.weight.data = torch.where(torch.rand(1024, 1024, generator=GENERATOR) < 0.01, net.weight.data, 0.0)
    x = torch.randn(16, 1024, generator=GENERATOR)

    model = SparseKernels().apply(capture.capture(net, (x,)).model, None)

    assert "1 of 1 layers" in model.lineage[-1]


def test_the_slower_of_two_kernels_is_found():
    few, many = torch.randn(64, 64), torch.randn(512, 512)

    found = kernels.speedup(lambda: many @ many, lambda: few @ few, blocks=6)

    assert found.low > 1


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda parts: (parts[0], parts[1] + 10_000, parts[2]), "damaged"),
        (lambda parts: (parts[0] + 7, parts[1], parts[2]), "damaged"),
        (lambda parts: (parts[0].long(), parts[1].long(), parts[2]), "not int32"),
    ],
    ids=["columns outside", "pointers outside", "wide indices"],
)
def test_indices_that_would_read_elsewhere_are_refused(sparse, tmp_path, damage, told):
    edit = GraphEdit(sparse.program)
    node = next(edit.calls(compressed.operator()))
    nodes = node.args[1:4]
    for part, value in zip(nodes, damage([edit.weight(part) for part in nodes]), strict=True):
        edit.set_weight(part, value)
    store.save(sparse.replace(program=edit.close()), tmp_path / "program")

    with pytest.raises(ArtifactError, match=told):
        store.load(tmp_path / "program")


def test_indices_that_the_graph_could_change_are_refused(sparse, tmp_path):
    edit = GraphEdit(sparse.program)
    node = next(edit.calls(compressed.operator()))
    with edit.graph.inserting_before(node):
        other = edit.graph.call_function(torch.ops.aten.add.Tensor, (node.args[2], 1))
    node.args = (*node.args[:2], other, *node.args[3:])
    store.save(sparse.replace(program=edit.close()), tmp_path / "program")

    with pytest.raises(ArtifactError, match="does not own"):
        store.load(tmp_path / "program")
