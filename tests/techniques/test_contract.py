"""The contract, for every technique of the catalogue: as a class, and applied to every tiny model."""

import pytest

from vivace.core.technique import Stage, Technique
from vivace.techniques import CATALOGUE
from vivace.testing import contract, tiny

SLOW = {"inductor", "aot-inductor", "torchao-static-int8", "tpu"}
"""What takes a compilation of seconds for each model; here `tpu` makes the same program as `xla`."""
QUICK_MODELS = {"mlp", "residual"}
CONVERTED_MODELS = QUICK_MODELS | {"encoder", "by-name"}


def _marks(kind: type[Technique], model: str) -> list[pytest.MarkDecorator]:
    """Conversions and compilations take seconds each; a few models are enough for every day."""
    quick = QUICK_MODELS if kind.name() in SLOW else CONVERTED_MODELS
    is_quick = model in quick or not (kind.packages or kind.name() in SLOW)
    return [] if is_quick else [pytest.mark.slow]


PAIRS = [
    pytest.param(kind, model, id=f"{kind.name()}-{model.name}", marks=_marks(kind, model.name))
    for kind in CATALOGUE
    for model in tiny.MODELS
]


@pytest.mark.parametrize("check", contract.CHECKS, ids=contract.name_of)
@pytest.mark.parametrize("kind", CATALOGUE, ids=lambda kind: kind.name())
def test_a_technique_keeps_the_contract_of_its_class(kind, check):
    check(kind)


@pytest.mark.parametrize(("kind", "model"), PAIRS)
def test_a_technique_leaves_a_tiny_model_right_or_says_why_it_does_not_apply(kind, model, tmp_path):
    reasons = [contract.check_applied(one, model, tmp_path / str(i)) for i, one in enumerate(_settings(kind, model))]

    assert all(isinstance(reason, str) for reason in reasons)


def _settings(kind, model):
    """Every setting that it offers on two models, the first on the others."""
    offered = contract.variants_of(kind)
    return offered if model.name in QUICK_MODELS and kind.name() not in SLOW else offered[:1]


def test_every_stage_that_has_a_folder_is_in_the_catalogue():
    stages = {kind.stage for kind in CATALOGUE}

    assert stages == {
        Stage.FEED,
        Stage.REWRITE,
        Stage.SPARSITY,
        Stage.PRECISION,
        Stage.MEMORY,
        Stage.PARALLEL,
        Stage.COMPILE,
        Stage.TARGET,
    }


def test_two_compilers_never_share_a_legal_plan():
    compilers = [kind for kind in CATALOGUE if kind.stage is Stage.COMPILE]
    everything = frozenset(fact for kind in CATALOGUE for fact in kind.needs | kind.gives | kind.breaks)

    legal = [(a, b) for a in compilers for b in compilers if a is not b and not _illegal(a, b, everything)]

    assert legal == []


def _illegal(first, second, facts):
    from vivace.core.plan import Plan

    return Plan((first(), second())).illegal(facts)
