"""Where the time of a call goes, told by each engine's own profiler, by the layers of the captured model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from vivace.core.compute import OperatorTime, Profile
from vivace.core.errors import ArtifactError, NotApplicable
from vivace.core.program import Form, Model
from vivace.core.registry import techniques
from vivace.core.work import Work
from vivace.data import samples
from vivace.measure.services.profiler import open_profiler
from vivace.runtimes import store
from vivace.runtimes.capture import capture
from vivace.runtimes.graphs import counts
from vivace.runtimes.profiles import onnx_events
from vivace.runtimes.profiles.native_clock import FIRST_THREAD, HANDED_OVER
from vivace.runtimes.profiles.opening import open_profiled
from vivace.runtimes.profiles.torch_events import nodes_of

KINDS = techniques()
ENTRY = "vivace.runtimes.profiles.opening:open_profiled"
MEANS = 3.0
"""OpenVINO tells means, which a disturbed machine lifts over the median of whole calls."""


class Uneven(nn.Module):
    """Three layers, of which the second does 16 times the work of the others together."""

    def __init__(self) -> None:
        super().__init__()
        self.light = nn.Linear(64, 256)
        self.heavy = nn.Sequential(nn.Linear(256, 2048), nn.ReLU(), nn.Linear(2048, 256))
        self.head = nn.Linear(256, 8)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 64] to [N, 8]."""
        return self.head(torch.tanh(self.heavy(self.light(x))))


LAYERS = {"light", "heavy.0", "heavy.1", "heavy.2", "tanh", "head"}


def _stored(folder: Path, *names: str) -> dict[str, str]:
    """A program folder of Uneven with these techniques, the original's, and eight calls."""
    x = torch.randn(64, 64)
    captured = capture(Uneven().eval(), (x,), varying=[frozenset({0})])
    original = model = captured.model
    work = Work("uneven", model.signature, frozenset(), counts.cost_of(model, [x]), folder)
    for name in names:
        model = KINDS[name]().apply(model, work)
    store.save(original, folder / "original")
    store.save(model, folder / "program")
    calls = samples.write(folder / "calls", [[torch.randn(64, 64)] for _ in range(8)], original.signature.call, 1)
    return {"program": str(folder / "program"), "original": str(folder / "original"), "calls": str(calls)}


def _profiled(folder: Path, *names: str) -> Profile:
    _stored(folder, *names)
    return _profile_of(folder, [[64, 64]], [0, 1, 2])


def _profile_of(folder: Path, shapes: list[list[int]], indices: list[int]) -> Profile:
    """What a worker would tell of the program, the original and the calls in a folder."""
    opened = {"program": str(folder / "program"), "original": str(folder / "original"), "shapes": shapes}
    asked = {"program": ENTRY, "arguments": opened, "calls": str(folder / "calls"), "indices": indices}
    profiler = open_profiler(asked)
    try:
        return Profile.from_json(profiler.profile())
    finally:
        profiler.close()


@pytest.mark.parametrize(
    ("names", "form", "slack"),
    [
        ((), "torch", 1.1),
        (("inference-mode",), "torch", 1.1),
        (("onnx-runtime",), "onnx", 1.1),
        (("openvino",), "openvino", MEANS),
        (("native-program",), "native", 1.1),
    ],
    ids=lambda value: "+".join(value) or "captured" if isinstance(value, tuple) else None,
)
def test_an_engine_tells_its_operators_by_layer_and_the_heavy_one_is_the_heaviest(
    names: tuple[str, ...], form: str, slack: float, tmp_path: Path
) -> None:
    found = _profiled(tmp_path, *names)

    assert found.form == form
    assert 0 < sum(one.seconds for one in found.operators) < slack * found.call_seconds
    named = {layer.partition("_")[0] for one in found.operators for layer in one.layers}
    assert {"light", "heavy.0", "heavy.2", "head"} <= named <= LAYERS
    heaviest = max(found.operators, key=lambda one: one.seconds)
    assert heaviest.layers[0] in ("heavy.0", "heavy.2")
    assert heaviest.seconds > 0


def test_a_graph_tells_the_work_of_each_node(tmp_path: Path) -> None:
    found = _profiled(tmp_path)

    (heavy,) = [one for one in found.operators if one.layers == ("heavy.0",)]
    assert heavy.flops == 2 * 64 * 256 * 2048
    assert heavy.moved_bytes == 4 * (64 * 256 + 256 * 2048 + 2048 + 64 * 2048)
    assert [one.operator for one in found.operators] == ["linear", "linear", "relu", "linear", "tanh", "linear"]
    assert found.note == ""


@pytest.mark.parametrize("name", ["onnx-runtime", "openvino"])
def test_an_engine_tells_the_bytes_that_a_layer_moves_with_its_weights(name: str, tmp_path: Path) -> None:
    found = _profiled(tmp_path, name)

    (heavy,) = [one for one in found.operators if "heavy.2" in one.layers]
    assert heavy.moved_bytes == pytest.approx(4 * (64 * 2048 + 2048 * 256 + 256 + 64 * 256), rel=0.01)


def test_written_code_tells_its_operators_in_order_with_what_each_does_the_work_of(tmp_path: Path) -> None:
    found = _profiled(tmp_path, "native-int8")

    assert [one.layers for one in found.operators[:2]] == [("light",), ("heavy.0", "heavy.1")]
    assert [one.operator for one in found.operators] == ["linear", "linear+relu", "linear", "linear", HANDED_OVER]
    assert found.note == FIRST_THREAD
    assert all(one.seconds > 0 for one in found.operators[:-1])


def test_written_code_for_calls_of_another_shape_is_not_profiled(tmp_path: Path) -> None:
    stored = _stored(tmp_path, "native-program")

    with pytest.raises(NotApplicable, match="of other shapes than its code is for"):
        open_profiled({**stored, "shapes": [[32, 64]]})


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_inductor_tells_its_kernels_and_the_operators_of_libraries_by_layer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "inductor"))

    found = _profiled(tmp_path, "inductor")

    assert (found.form, found.note) == ("inductor", "")
    told = [one.layers for one in found.operators if one.layers]
    assert told == [("light",), ("heavy.0",), ("heavy.1",), ("heavy.2",), ("tanh",), ("head",)]
    assert max(found.operators, key=lambda one: one.seconds).layers[0] in ("heavy.0", "heavy.2")
    assert sum(one.seconds for one in found.operators) < 1.1 * found.call_seconds


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda model: model.replace(settings=model.settings.replace(instances=2)), "2 copies at the same time"),
        (lambda model: model.replace(settings=model.settings.replace(device="cuda")), "cuda are not profiled"),
        (lambda model: model.replace(form=Form.NULL, program=None), "null does not tell where its time goes"),
    ],
)
def test_what_is_not_profiled_says_why(change, reason: str, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    stored = _stored(tmp_path)
    model: Model = change(store.read_model(tmp_path / "original"))
    store.save(model, tmp_path / "program")

    with pytest.raises(NotApplicable, match=reason):
        open_profiled({**stored, "shapes": [[64, 64]]})


def test_a_program_that_is_not_there_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no readable program"):
        open_profiled({"program": str(tmp_path), "original": str(tmp_path), "shapes": []})


def test_onnx_runtime_leaves_no_file_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))

    _profiled(tmp_path, "onnx-runtime")

    assert list((tmp_path / "temporary").iterdir()) == []


def test_a_convolution_in_int8_is_told_by_its_weights_where_its_tensors_were_laid_out_anew(tmp_path: Path) -> None:
    class Images(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.norm, self.body = nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.Conv2d(16, 16, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.body(self.norm(self.stem(x)).relu()).relu()

    x = torch.randn(2, 3, 16, 16)
    captured = capture(Images().eval(), (x,)).model
    calls = samples.write(tmp_path / "calls", [[x]], captured.signature.call, 1)
    cost = counts.cost_of(captured, [x])
    work = Work("images", captured.signature, frozenset(), cost, tmp_path, calibration=calls)
    store.save(captured, tmp_path / "original")
    store.save(KINDS["onnx-static-int8"]().apply(captured, work), tmp_path / "program")

    found = _profile_of(tmp_path, [list(x.shape)], [0])

    convolutions = [one.layers[0] for one in found.operators if "Conv" in one.operator]
    assert convolutions == ["stem", "body"]


def test_operators_are_nodes_by_name_and_order_and_an_unknown_one_is_not_guessed() -> None:
    graph = capture(Uneven().eval(), (torch.randn(2, 64),)).model.program.graph

    found = nodes_of(["aten::linear", "aten::relu", "aten::linear"], graph.nodes)

    assert found is not None and [node.target._opname for node in found] == ["linear", "relu", "linear"]
    assert nodes_of(["aten::linear", "aten::softmax"], graph.nodes) is None


def test_a_kernel_inside_of_another_is_not_counted_twice() -> None:
    def event(name: str, start: int, taken: int, kind: str = "Node") -> dict[str, object]:
        return {"name": name, "ts": start, "dur": taken, "cat": kind, "args": {}}

    first = [event("loop_kernel_time", 10, 50), event("inner_kernel_time", 12, 20), event("relu_kernel_time", 60, 5)]
    second = [event("relu_kernel_time", 110, 7)]
    runs = onnx_events.kernels(
        [event("model_run", 5, 70, "Session"), *first, event("model_run", 100, 20, "Session"), *second]
    )

    names = [[one["name"] for one in onnx_events.outermost(run)] for run in runs]
    assert names == [["loop_kernel_time", "relu_kernel_time"], ["relu_kernel_time"]]


def test_a_profile_comes_back_from_json() -> None:
    operator = OperatorTime("conv2d", ("stem",), 0.5, 2.0, None)
    node = {"form": "torch", "call_seconds": 1.0, "operators": [vars(operator) | {"layers": ["stem"]}], "note": ""}

    assert Profile.from_json(node) == Profile("torch", 1.0, (operator,))
