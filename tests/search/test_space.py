"""The space holds the legal plans and says why the rest is left out."""

from __future__ import annotations

import dataclasses

import pytest

from search.toys import FACTS, KNOWN, MACHINE, WORK, Engine, Halve, InferenceMode, Packed, Threads, Turbine
from vivace.core.errors import UsageError
from vivace.core.facts import Fact
from vivace.core.plan import Plan
from vivace.search.space import check_usable, space_of
from vivace.techniques.sparsity.magnitude_pruning import MagnitudePruning
from vivace.techniques.sparsity.sparse_kernels import SparseKernels


def test_a_technique_that_needs_a_missing_device_is_left_out_with_the_reason() -> None:
    space = space_of(WORK, MACHINE, KNOWN)

    assert "on-card" not in space.settings
    assert "needs a CUDA device" in space.left_out["on-card"]


def test_seeds_pair_precisions_with_one_compiler_and_never_two_compilers() -> None:
    seeds = set(space_of(WORK, MACHINE, KNOWN).seeds())

    assert Plan.of([Halve(), Engine()]) in seeds
    assert Plan.of([Turbine()]) in seeds
    assert not any(Engine() in plan and Turbine() in plan for plan in seeds)


def test_a_program_that_nothing_runs_is_no_plan() -> None:
    plan = Plan.of([Packed()])

    assert space_of(WORK, MACHINE, KNOWN).legal([Packed()]) is None
    assert "packed needs a later technique that can run its program" in (plan.illegal(FACTS) or "")


def test_two_techniques_that_need_the_same_fact_are_illegal_and_the_sentence_names_both() -> None:
    reason = Plan.of([Engine(), Turbine()]).illegal(FACTS)

    assert reason == "turbine needs a program that no compiler has taken over yet, which engine took away"


def test_neighbours_differ_by_one_technique() -> None:
    start = Plan.of([InferenceMode(), Threads(count=1)])

    neighbours = set(space_of(WORK, MACHINE, KNOWN).neighbours(start))

    assert Plan.of([InferenceMode()]) in neighbours
    assert Plan.of([InferenceMode(), Threads(count=2)]) in neighbours
    assert Plan.of([InferenceMode(), Threads(count=1), Engine()]) in neighbours
    assert start not in neighbours
    assert Plan.of([Engine()]) not in neighbours


def test_a_technique_that_needs_a_fact_of_another_may_bring_it_along() -> None:
    known = {kind.name(): kind for kind in (MagnitudePruning, SparseKernels)}
    work = dataclasses.replace(WORK, facts=WORK.facts | {Fact.HAS_LINEAR})

    neighbours = set(space_of(work, MACHINE, known).neighbours(Plan()))

    assert Plan.of([MagnitudePruning(share=0.8), SparseKernels()]) in neighbours
    assert Plan.of([SparseKernels()]) not in neighbours


def test_only_and_without_bound_the_space() -> None:
    assert set(space_of(WORK, MACHINE, KNOWN, only=["threads"]).settings) == {"threads"}
    assert "threads" not in space_of(WORK, MACHINE, KNOWN, without=["threads"]).settings


def test_only_techniques_that_cannot_run_alone_are_refused_with_the_reason() -> None:
    space = space_of(WORK, MACHINE, KNOWN, only=["packed"])

    with pytest.raises(UsageError, match=r"leaves no plan.*packed needs a later technique"):
        check_usable(space, ["packed"])


def test_leaving_out_every_technique_leaves_no_plan() -> None:
    space = space_of(WORK, MACHINE, KNOWN, without=list(KNOWN))

    with pytest.raises(UsageError, match="--without leaves no plan"):
        check_usable(space, [], list(KNOWN))


def test_everything_holds_each_legal_combination_once() -> None:
    space = space_of(WORK, MACHINE, KNOWN, only=["inference-mode", "threads", "engine"])

    assert len(space.everything()) == 2 * 3 * 2 - 1
