"""What int8 does to each layer, for a report: read where a search found it, measured where int8 was delivered."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import nn

import vivace as vv
from vivace.api.sensitivity import known, sensitivity_of
from vivace.core.plan import Plan
from vivace.core.registry import techniques
from vivace.measure.clock import FakeClock, SystemClock
from vivace.runtimes import store
from vivace.search.prepare import Prepared, prepare
from vivace.search.schedule import Schedule
from vivace.techniques import sensitivity

KINDS = techniques()


class Uneven(nn.Module):
    """Three layers; the second one's inputs and weights span a range that 8 bits cannot hold."""

    def __init__(self) -> None:
        super().__init__()
        self.easy, self.hard, self.head = nn.Linear(16, 16), nn.Linear(16, 16), nn.Linear(16, 4)
        with torch.no_grad():
            self.hard.weight[:, 0] *= 1e-3

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, 16] to [N, 4]."""
        y = self.easy(x).tanh()
        return self.head(self.hard(torch.cat([y[:, :1] * 3000, y[:, 1:]], dim=1)).tanh())


@pytest.fixture
def prepared(tmp_path: Path) -> Prepared:
    torch.manual_seed(0)
    model, x = Uneven().eval(), torch.randn(600, 16)
    with torch.no_grad():
        pairs = list(zip(x.split(20), model(x).argmax(1).split(20), strict=True))
    work = vv.Workload(model, inputs=(x[:8],), data=pairs, metric=vv.metrics.accuracy, name="uneven")
    return prepare(work, tmp_path / "run")


def plan(keep: int) -> Plan:
    return Plan.of([KINDS["nncf-static-int8"](keep=keep), KINDS["openvino"]()])  # type: ignore[call-arg]


def stored(prepared: Prepared, *lineage: str, quantized: tuple[str, ...] = ()) -> Path:
    """A winner's program of this lineage, with these layers in integers."""
    folder = prepared.work.folder / "winner"
    store.save(store.read_model(prepared.program).replace(lineage=lineage, quantized=quantized), folder)
    return folder


def early() -> Schedule:
    return Schedule(300.0, SystemClock().now(), 3)


def test_a_winner_in_int8_has_its_layers_ranked_in_a_worker_and_the_planted_one_is_first(prepared: Prepared) -> None:
    found = sensitivity_of(plan(keep=1), stored(prepared, "nncf-static-int8(keep=1)"), prepared, early())

    assert found[0].layer == "hard"
    assert found[0].sqnr_db < min(one.sqnr_db for one in found[1:]) - 10
    assert [one.kept for one in found] == [True, False, False]
    assert sum(one.seconds_share for one in found) == pytest.approx(1.0)


def test_layers_that_the_user_named_are_kept_too(prepared: Prepared) -> None:
    head = next(layer.name for layer in prepared.work.layers if layer.path == "head")
    named = dataclasses.replace(prepared, work=dataclasses.replace(prepared.work, keep=(head,)))

    found = sensitivity_of(plan(keep=0), stored(prepared), named, early())

    assert {one.layer for one in found if one.kept} == {"head"}


def test_a_layer_that_the_program_has_in_integers_is_not_told_as_kept_whoever_named_it(prepared: Prepared) -> None:
    easy, _, head = (layer.name for layer in prepared.work.layers)
    named = dataclasses.replace(prepared, work=dataclasses.replace(prepared.work, keep=(head,)))
    program = stored(prepared, "nncf-static-int8", quantized=(easy, head))

    found = sensitivity_of(plan(keep=0), program, named, early())

    assert {one.layer: one.kept for one in found} == {"easy": False, "hard": True, "head": False}


@pytest.mark.parametrize("tells", [True, False])
def test_weights_in_integers_are_not_kept_where_products_are_in_float(prepared: Prepared, tells: bool) -> None:
    sensitivity.ranked(store.read_model(prepared.program), prepared.work)
    names = tuple(layer.name for layer in prepared.work.layers)
    weight_only = Plan.of([KINDS["openvino-weight-only"](), KINDS["openvino"]()])

    found = sensitivity_of(weight_only, stored(prepared, quantized=names if tells else ()), prepared, early())

    assert [one.kept for one in found] == [False, False, False]


def test_what_the_search_found_for_the_winners_own_beginning_is_read_and_not_measured(prepared: Prepared) -> None:
    captured = store.read_model(prepared.program)
    pruned = captured.replace(lineage=("pruned",))
    sensitivity.ranked(captured, prepared.work)
    sensitivity.ranked(pruned, prepared.work)

    late = Schedule(300.0, 0.0, 3, FakeClock([299.0]))
    found = sensitivity_of(plan(keep=2), stored(prepared, "pruned", "nncf-static-int8(keep=2)"), prepared, late)

    assert [one.kept for one in found] == [True, True, False]
    assert known(prepared.work, ("pruned", "quantized")) == sensitivity.kept_ranking(prepared.work, ("pruned",))
    assert known(prepared.work, ("folded",)) == sensitivity.kept_ranking(prepared.work, ())


def test_without_time_or_int8_nothing_is_measured(prepared: Prepared) -> None:
    late = Schedule(300.0, 0.0, 3, FakeClock([299.0]))

    assert sensitivity_of(plan(keep=0), stored(prepared), prepared, late) == ()
    assert sensitivity_of(Plan.of([KINDS["openvino"]()]), stored(prepared), prepared, early()) == ()
    assert not (prepared.work.folder / "sensitivity").exists()


def test_a_winner_in_float_keeps_every_layer(prepared: Prepared) -> None:
    sensitivity.ranked(store.read_model(prepared.program), prepared.work)

    found = sensitivity_of(Plan.of([KINDS["openvino"]()]), stored(prepared), prepared, early())

    assert [one.kept for one in found] == [True, True, True]


def test_a_worker_that_fails_leaves_it_empty(prepared: Prepared) -> None:
    program = stored(prepared)
    (prepared.program / "model.pt2").unlink()

    assert sensitivity_of(plan(keep=0), program, prepared, early()) == ()
