"""How a program lies on several devices: fewer parts on fewer devices, and a stored layout that is not trusted."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from vivace.core.errors import ArtifactError
from vivace.core.program import Model
from vivace.runtimes import store
from vivace.runtimes.capture import capture

pytest.importorskip("jax", reason="the extra vivace[tpu] is not installed")

from vivace.runtimes.xla import layout as layouts
from vivace.runtimes.xla import stablehlo
from vivace.runtimes.xla.layout import ALONE, Layout, layout_of, words


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Model:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4)).eval()
    model = capture(module, (torch.rand(4, 8),)).model
    return stablehlo.to_xla(model, tmp_path_factory.mktemp("xla") / "made")


def with_layout(model: Model, told: str) -> Model:
    return model.replace(settings=model.settings.with_options(**{layouts.OPTION: told}))


@pytest.mark.parametrize(
    ("data", "tensor", "devices", "found"),
    [
        (2, 4, 8, (2, 4)), (2, 4, 100, (2, 4)), (2, 4, 7, (1, 4)), (2, 4, 3, (1, 2)), (2, 4, 1, (1, 1)),
        (6, 1, 4, (3, 1)), (1, 32, 16, (1, 16)), (4, 3, 2, (2, 1)),
    ],
)  # fmt: skip
def test_there_are_as_many_parts_as_devices_hold_each_a_whole_number_of_those_asked_for(
    data: int, tensor: int, devices: int, found: tuple[int, int]
) -> None:
    fewer = Layout(data, tensor, (0, None)).within(devices)

    assert (fewer.data, fewer.tensor, fewer.dimensions) == (*found, (0, None))


def test_a_layout_is_read_as_it_was_stored(made: Model) -> None:
    _, weights = stablehlo.read(Path(made.program))
    wanted = Layout(2, 4, (0, 0, 1, None))

    assert layout_of(with_layout(made, wanted.as_option()), weights) == wanted
    assert layout_of(made, weights) == ALONE


@pytest.mark.parametrize(
    "told",
    [
        "nonsense", "[]", '{"data": 2}', '{"data": 0, "tensor": 1, "dimensions": [0, 0, 1, null]}',
        '{"data": 2, "tensor": true, "dimensions": [0, 0, 1, null]}',
        '{"data": 99999999999, "tensor": 1, "dimensions": [0, 0, 1, null]}',
        '{"data": 1, "tensor": 3, "dimensions": [0, 0, 1, null]}',
        '{"data": 1, "tensor": 2, "dimensions": [0, 0, 2, null]}',
        '{"data": 1, "tensor": 2, "dimensions": [-1, 0, 1, null]}',
        '{"data": 1, "tensor": 2, "dimensions": [0]}', '{"data": 1, "tensor": 2, "dimensions": 5}',
        '{"data": 1, "tensor": 2, "dimensions": [0, 0, "1", null]}', '{"data": 2, "tensor": 2, "more": 1}',
    ],
)  # fmt: skip
def test_a_stored_layout_that_does_not_fit_is_refused_when_it_is_loaded(made: Model, told: str, tmp_path: Path) -> None:
    store.save(with_layout(made, told), tmp_path / "program")

    with pytest.raises(ArtifactError, match="the option mesh is"):
        store.load(tmp_path / "program")


def test_where_a_program_runs_is_told_beside_what_it_was_compiled_for() -> None:
    wanted = Layout(2, 4)

    assert words(wanted, wanted, "tpu") == "8 tpu devices, the batch in 2 parts, the weights in 4 parts"
    assert words(ALONE, ALONE, "cpu") == "1 cpu device"
    assert words(wanted.within(1), wanted, "cpu") == (
        "1 cpu device; it was compiled for 8, the batch in 2 parts, the weights in 4 parts"
    )


def test_on_one_device_a_program_of_a_mesh_answers_and_says_that_it_has_fewer(made: Model, tmp_path: Path) -> None:
    store.save(with_layout(made, Layout(2, 4, (0, 0, 1, None)).as_option()), tmp_path / "program")
    store.save(made, tmp_path / "plain")
    x = torch.rand(5, 8)

    one, other = store.load(tmp_path / "program"), store.load(tmp_path / "plain")

    assert torch.equal(one(x), other(x))
    assert (one.has_fewer_devices, other.has_fewer_devices) == (True, False)
    assert other.runs_on == "1 cpu device"
