"""The contract that every technique passes: as a class, and applied to each tiny model, stored and loaded again.

@pytest.mark.parametrize("check", contract.CHECKS, ids=contract.name_of)
def test_my_technique_keeps_the_contract(check):
    check(MyTechnique)

@pytest.mark.parametrize("model", tiny.MODELS, ids=lambda m: m.name)
def test_my_technique_keeps_tiny_models_right(model, tmp_path):
    contract.check_applied(MyTechnique(), model, tmp_path)
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import hashlib
import inspect
import json
import random
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vivace.core import registry
from vivace.core.cost import Cost
from vivace.core.errors import NotApplicable
from vivace.core.facts import Fact
from vivace.core.machine import Machine
from vivace.core.plan import Plan, read_plan
from vivace.core.program import Model
from vivace.core.structure import flatten
from vivace.core.technique import Effect, Family, Stage, Technique
from vivace.core.work import Work
from vivace.data import samples
from vivace.devices import machine as machines
from vivace.measure import fidelity
from vivace.runtimes import capture, store
from vivace.runtimes.graphs import counts
from vivace.testing.tiny import Tiny, answer

BATCHES = (2, 5)
"""The numbers of samples that a program is asked for; the example has 4."""
LEAST_SQNR_DB = 10.0
"""For techniques that change the computation. Random tiny nets quantize worse than trained ones; 20 dB is usual."""
CALIBRATION_CALLS = 24
SAMPLE_MACHINE = Machine("any", "x86_64", ("avx512_vnni", "avx512_bf16"), 4, 8, 1 << 33, "Linux", cxx_compiler="g++")
SAMPLE_COST = Cost(flops=1e9, weight_bytes=4e6, activation_bytes=8e6, operators=40)


def check_technique(kind: type[Technique]) -> None:
    """Every check of a class. Raises AssertionError with what is wrong."""
    for check in CHECKS:
        check(kind)


def check_is_a_frozen_value(kind: type[Technique]) -> None:
    """A frozen dataclass, hashable and comparable."""
    parameters = vars(kind).get("__dataclass_params__")
    assert parameters is not None, f"{kind.__name__} is no dataclass; add @dataclass(frozen=True)"
    assert parameters.frozen, f"{kind.__name__} can be changed; add frozen=True"
    for one, again in zip(variants_of(kind), variants_of(kind), strict=True):
        assert one == again and hash(one) == hash(again), f"two of {one} are not equal"


def check_is_declared(kind: type[Technique]) -> None:
    """Stage, family, effect and source are said, and the docstring names the source."""
    assert isinstance(kind.stage, Stage) and isinstance(kind.family, Family) and isinstance(kind.effect, Effect)
    assert kind.source.strip(), f"{kind.__name__} names no source"
    documentation = inspect.getdoc(kind) or ""
    assert "Source:" in documentation, f"the docstring of {kind.__name__} has no 'Source:'"
    assert bool(kind.packages) == bool(kind.extra), f"{kind.__name__} must name both packages and the extra, or neither"


def check_acts_on_something(kind: type[Technique]) -> None:
    """It changes programs (`apply`), trainings (`equip`), or both; what acts on trainings alone needs one."""
    assert kind.runs() or kind.trains(), f"{kind.__name__} has neither apply nor equip"
    assert kind.runs() or Fact.TRAINING in kind.needs, f"{kind.__name__} has no apply and does not need Fact.TRAINING"


def check_is_named(kind: type[Technique]) -> None:
    """A kebab-case name that nobody else has."""
    name = kind.name()
    assert re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name), f"{name!r} is not kebab-case"
    other = registry.techniques().get(name, kind)
    assert other is kind, f"{other.__module__} has a technique named {name!r} already"


def check_facts_agree(kind: type[Technique]) -> None:
    """Nothing is given and broken at once, what is given was not needed, and facts are Facts."""
    for facts in (kind.needs, kind.gives, kind.breaks):
        assert isinstance(facts, frozenset) and all(isinstance(fact, Fact) for fact in facts)
    assert not kind.gives & kind.breaks, f"{kind.name()} gives and breaks {kind.gives & kind.breaks}"
    assert not kind.gives & kind.needs, f"{kind.name()} gives what it needs: {kind.gives & kind.needs}"
    if kind.stage is Stage.COMPILE:
        assert Fact.UNCOMPILED in kind.needs & kind.breaks, f"{kind.name()} could be combined with another compiler"


def check_rewrites_costs_sensibly(kind: type[Technique]) -> None:
    """Counts stay counts; flops stay unless the technique says it changed the computation; nothing becomes free."""
    for one in variants_of(kind):
        cost = one.rewrite(SAMPLE_COST)
        assert isinstance(cost, Cost)
        assert cost.operators >= 1 and cost.operator_seconds > 0 and cost.call_seconds > 0
        assert cost.weight_bytes >= SAMPLE_COST.weight_bytes / 16 and cost.activation_bytes > 0
        assert one.effect is Effect.CHANGED or cost.flops >= SAMPLE_COST.flops * 0.5
        assert 1 <= cost.threads <= max(SAMPLE_MACHINE.cores_allowed, SAMPLE_COST.threads)
        assert one.rewrite(SAMPLE_COST) == cost


def check_variants_survive_json(kind: type[Technique]) -> None:
    """Its variants are of its own class, differ, and come back from a plan's JSON."""
    variants = variants_of(kind)
    assert all(type(one) is kind for one in variants)
    assert len(set(variants)) == len(variants), f"{kind.name()} offers the same setting twice"
    for one in variants:
        node = json.loads(json.dumps(Plan((one,)).to_json()))
        try:
            found = read_plan(node, {kind.name(): kind})
        except TypeError as error:
            raise AssertionError(f"a plan with {one} cannot be read back: {error}") from error
        assert found == Plan((one,))


def check_asks_for_settings_that_it_has(kind: type[Technique]) -> None:
    """What a machine asks for (`on_without`) are fields of the class, and on where the machine has nothing."""
    asked = kind.here(dataclasses.replace(SAMPLE_MACHINE, instructions=(), cxx_compiler=""))
    settings = kind(**asked).settings() if asked else {}
    assert all(settings[setting] is True for setting, _ in kind.on_without), f"{kind.__name__} lacks one of {asked}"


CHECKS: tuple[Callable[[type[Technique]], None], ...] = (
    check_is_a_frozen_value,
    check_is_declared,
    check_acts_on_something,
    check_is_named,
    check_facts_agree,
    check_rewrites_costs_sensibly,
    check_variants_survive_json,
    check_asks_for_settings_that_it_has,
)
"""What every class must pass, one function each, for pytest.mark.parametrize."""


def name_of(check: Callable[..., Any]) -> str:
    """A check's name in a list of tests."""
    return check.__name__.removeprefix("check_").replace("_", "-")


def check_applied(technique: Technique, model: Tiny, folder: Path, after: Sequence[Technique] = ()) -> str:
    """Apply a technique to one tiny model, store the program, load it again and judge its answers.

    `after` are techniques that come before it and make true what it needs. Returns "" when it was judged and found
    right, else why it does not apply here. Raises AssertionError when the answers differ in structure, shape, dtype or
    by more than the technique's effect allows, when the stored original changed, or when a setting of the process did.
    """
    original = prepare(model, folder / "original")
    work = describe(original, model, folder)
    plan = runnable_plan(technique, work, after)
    if isinstance(plan, str):
        return plan
    for draw in (torch.rand, np.random.random, random.randbytes):
        draw(1)  # a generator that is seeded as it was before would not be seen to have been
    digest, settings = _digest(folder / "original"), process_settings()
    try:
        for one in plan:
            original = one.apply(original, work)
        store.save(original, folder / "changed")
        program = store.load(folder / "changed", trust=True)
    except NotApplicable as error:
        assert error.reason.strip(), f"{technique} does not say why it is not applicable"
        return error.reason
    _judge(plan.effect, model, program)
    assert _digest(folder / "original") == digest, f"{technique} changed the stored original"
    changed = {name for name, value in process_settings().items() if value != settings[name]}
    assert not changed, f"{technique} changed settings of the process: {', '.join(sorted(changed))}"
    return ""


def prepare(model: Tiny, folder: Path) -> Model:
    """A tiny model captured, stored and read back, as a build job finds it."""
    store.save(_captured(model), folder)
    return store.read_model(folder)


@functools.cache
def _captured(model: Tiny) -> Model:
    """The same for every technique: an export takes longer than most of them do. Nobody gets it but from a store."""
    return capture.capture(model.model(), model.inputs()).model


def describe(original: Model, model: Tiny, folder: Path) -> Work:
    """The job of a tiny model on this machine, with calibration data and native code allowed."""
    signature = original.signature
    calls = [_leaves(model.inputs(seed=100 + i)) for i in range(CALIBRATION_CALLS)]
    calibration = samples.write(folder / "calibration", calls, signature.call, signature.positional)
    facts = counts.facts_of(original) | machines.detect().facts() | {Fact.CALIBRATION, Fact.NATIVE_ALLOWED}
    cost = counts.cost_of(original, _leaves(model.inputs()))
    example = samples.write(folder / "example", [_leaves(model.inputs())], signature.call, signature.positional)
    return Work(
        model.name,
        signature,
        facts,
        cost,
        folder,
        calibration,
        example,
        operators=counts.operators_of(original),
        original=folder / "original",
    )


def runnable_plan(technique: Technique, work: Work, after: Sequence[Technique] = ()) -> Plan | str:
    """The shortest legal plan with these techniques: alone, or with one that runs what they make; else why there is
    none."""
    plan = Plan.of([*after, technique])
    reason = plan.illegal(work.facts)
    if reason is None:
        return plan
    for kind in registry.techniques().values():
        may_run = Fact.RUNNABLE in kind.gives or (kind.stage is Stage.COMPILE and Fact.NATIVE_ALLOWED not in kind.needs)
        runners = kind.variants(work, machines.detect()) if may_run else ()
        for runner in runners:
            longer = Plan.of([*plan, runner])
            if longer.illegal(work.facts) is None:
                return longer
    return reason


def process_settings() -> dict[str, Any]:
    """Settings of the process that a technique must leave alone."""
    return {
        "threads": torch.get_num_threads(),
        "default dtype": torch.get_default_dtype(),
        "default device": str(torch.get_default_device()),
        "gradients": torch.is_grad_enabled(),
        "inference mode": torch.is_inference_mode_enabled(),
        "deterministic algorithms": torch.are_deterministic_algorithms_enabled(),
        "matrix product precision": torch.get_float32_matmul_precision(),
        "oneDNN": torch.backends.mkldnn.enabled,
        "cuDNN benchmark": torch.backends.cudnn.benchmark,
        "torch's random state": hashlib.sha256(torch.get_rng_state().numpy().tobytes()).hexdigest(),
        "numpy's random state": hashlib.sha256(repr(np.random.get_state()).encode()).hexdigest(),
        "Python's random state": hashlib.sha256(repr(random.getstate()).encode()).hexdigest(),
    }


def _judge(effect: Effect, model: Tiny, program: Callable[..., Any]) -> None:
    module = model.model()
    exact = copy.deepcopy(module).double()
    calls = [model.inputs(batch, seed=10 + batch) for batch in BATCHES]
    with torch.no_grad():
        wanted = [answer(module, call) for call in calls]
        found = [answer(program, call) for call in calls]
        reference = [answer(exact, _doubled(call)) for call in calls]
    for want, got in zip(wanted, found, strict=True):
        assert flatten(got, _is_tensor)[1] == flatten(want, _is_tensor)[1], "the answer has another structure"
    exact_leaves, leaves, found_leaves = (list(map(_leaves, values)) for values in (reference, wanted, found))
    if effect is Effect.CHANGED:
        got_db = fidelity.compare_outputs(leaves, found_leaves).sqnr_db
        assert got_db >= LEAST_SQNR_DB, f"the answers are at {got_db:.1f} dB; at least {LEAST_SQNR_DB} are asked for"
        return
    right, reason = fidelity.referee(exact_leaves, leaves, found_leaves)
    assert right, reason


def _doubled(call: Any) -> Any:
    """The call in float64."""
    leaves, structure = flatten(call, _is_tensor)
    return structure.build([leaf.double() if leaf.is_floating_point() else leaf for leaf in leaves])


def _leaves(value: Any) -> list[Tensor]:
    return flatten(value, _is_tensor)[0]


def _is_tensor(value: Any) -> bool:
    return isinstance(value, Tensor)


def variants_of(kind: type[Technique]) -> list[Technique]:
    work = Work("any", None, frozenset(Fact), SAMPLE_COST, Path())  # type: ignore[arg-type]
    return list(kind.variants(work, SAMPLE_MACHINE)) or _defaults(kind)


def _defaults(kind: type[Technique]) -> list[Technique]:
    """A technique that offers nothing on the sample machine is checked by its defaults, when it has them."""
    needed = [f for f in dataclasses.fields(kind) if f.default is f.default_factory]  # type: ignore[arg-type]
    return [] if needed else [kind()]


def _digest(folder: Path) -> str:
    whole = hashlib.sha256()
    for path in _files(folder):
        whole.update(path.name.encode() + path.read_bytes())
    return whole.hexdigest()


def _files(folder: Path) -> Iterable[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())
