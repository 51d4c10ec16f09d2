"""The worker's side without a process: tensors of every type through shared memory, and what may be batched."""

from __future__ import annotations

import pytest
import torch
from served import Classifier, inputs, letters_artifact, make_artifact
from torch import nn

from vivace.artifact.manifest import GOLDEN_CALLS, GOLDEN_OUTPUTS
from vivace.core.errors import ArtifactError
from vivace.core.program import Settings
from vivace.core.signature import Signature, TensorSpec
from vivace.core.structure import Structure
from vivace.data import samples
from vivace.runtimes.calls import torch_dtype
from vivace.runtimes.program import Program
from vivace.serve.protocol.datatypes import DATATYPES
from vivace.serve.workers.arena import FIRST_BYTES, Arena
from vivace.serve.workers.child import Desk
from vivace.serve.workers.messages import Computed, Place, encode_inputs
from vivace.serve.workers.opening import Batching, batching_of, open_artifact

TENSOR = Structure("tensor")


@pytest.fixture
def arenas():
    pair = Arena.create(), Arena.create()
    yield pair
    for arena in pair:
        arena.close()


def program(dtype, run):
    spec = TensorSpec("x", dtype, (None, 3), 0)
    return Program(Signature(Structure("dict", (TENSOR,), ("x",)), 1, (spec,), TENSOR, (spec,)), Settings(), run)


@pytest.mark.parametrize("datatype", DATATYPES, ids=lambda datatype: datatype.name)
def test_every_type_crosses_both_arenas_unchanged(datatype, arenas):
    given, taken = arenas
    values = torch.tensor([[0, 1, 2], [3, 4, 5]]).to(torch_dtype(datatype.torch))
    raw = values.reshape(-1).view(torch.uint8).numpy().tobytes()
    given.write(64, raw)

    found = Desk(program(datatype.torch, lambda leaves: [leaves[0].t().t()])).answer(
        encode_inputs([Place(64, (2, 3))]), given, taken
    )

    assert found.outputs == (Place(0, (2, 3)),)
    assert taken.read(0, len(raw)) == raw


def test_a_byte_that_is_not_0_is_true(arenas):
    given, taken = arenas
    given.write(0, b"\x00\x07\xff")
    Desk(program("bool", lambda leaves: [leaves[0].view(torch.uint8)])).answer(
        encode_inputs([Place(0, (1, 3))]), given, taken
    )
    assert taken.read(0, 3) == b"\x00\x01\x01"


def test_answers_larger_than_the_arena_make_it_grow_on_both_sides(arenas):
    given, taken = arenas
    seen_by_the_front = Arena(taken.descriptor)
    big = torch.arange(3 * FIRST_BYTES, dtype=torch.float32).reshape(1, -1)
    found = Desk(program("float32", lambda leaves: [big])).answer(encode_inputs([Place(0, (1, 3))]), given, taken)
    seen_by_the_front.follow()
    assert seen_by_the_front.read(0, 12 * FIRST_BYTES) == big.numpy().tobytes()
    assert Computed.decode(found.encode()) == found


def test_what_a_call_raises_is_told_and_what_it_does_not_accept_apart(arenas, capsys):
    def fails(leaves):
        raise ZeroDivisionError("inside")

    failed = Desk(program("float32", fails)).answer(encode_inputs([Place(0, (1, 3))]), *arenas)
    refused = Desk(program("float32", fails)).answer(encode_inputs([Place(0, (1, 4))]), *arenas)
    assert (failed.failure, failed.call_error) == ("ZeroDivisionError: inside", "")
    assert "allowed is [any, 3]" in refused.call_error
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_an_artifact_whose_answers_do_not_depend_on_company_is_batched_by_its_measured_curve(letters):
    found = batching_of(open_artifact(letters, False, None), letters)
    assert found.why_not == ""
    assert 1 <= found.most_samples <= 64
    assert [count for count, _ in found.points][:3] == [1, 2, 4]
    assert Batching.from_json(found.to_json()) == found


class Centred(nn.Module):
    """Subtracts the mean of the batch: every answer depends on its company."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x - x.mean(0, keepdim=True)


def test_an_artifact_that_claims_invariance_wrongly_is_found_out_by_its_golden_samples(tmp_path, letters):
    liar = letters_artifact(tmp_path / "fast", tmp_path / "work")
    opened = open_artifact(liar, False, None)
    honest = opened.program._run
    opened.program._run = lambda leaves: [leaf - leaf.mean(0, keepdim=True) for leaf in honest(leaves)]
    found = batching_of(opened, liar)
    assert "answered otherwise alone or among others" in found.why_not
    assert found.most_samples == 1


def test_an_artifact_that_failed_the_check_or_has_no_batch_axis_is_not_batched(tmp_path):
    failed = letters_artifact(tmp_path / "failed", tmp_path / "work1", batch_invariant=False)
    assert "not the same alone" in batching_of(open_artifact(failed, False, None), failed).why_not
    calls = [(torch.rand(4, 3, generator=torch.Generator().manual_seed(n)),) for n in range(2)]
    lone = make_artifact(tmp_path / "lone", tmp_path / "work2", Centred(), calls)
    found = batching_of(open_artifact(lone, False, None), lone)
    assert "first axis" in found.why_not
    assert len(found.points) == 1


def test_a_worker_that_finds_another_artifact_than_its_mates_refuses_to_serve_it(letters):
    with pytest.raises(ArtifactError, match="was changed since it was first served; send the server SIGHUP"):
        open_artifact(letters, False, "0" * 64)


def test_the_golden_answers_are_those_of_the_model(letters):
    call, answer = samples.read(letters / GOLDEN_CALLS)[0], samples.read_outputs(letters / GOLDEN_OUTPUTS)[0]
    assert torch.equal(call[0], inputs(5, 0)[0])
    with torch.no_grad():
        torch.testing.assert_close(answer[0], Classifier()(*call)["scores"])
