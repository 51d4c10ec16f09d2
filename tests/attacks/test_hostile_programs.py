"""Program folders with absurd settings, signatures that do not hold, and graphs with more than arithmetic in them."""

from __future__ import annotations

import json
import pickle
import re
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from attacks.forging import copy, edit_json, edit_members, reseal
from vivace.artifact.load import load
from vivace.core.errors import ArtifactError, EnvironmentFault
from vivace.core.structure import Record, Structure

Members = dict[str, bytes]
GRAPH = "model/models/model.json"
WEIGHTS = "model/data/weights/model_weights_config.json"


class Payload:
    """Touches the canary when it is unpickled."""

    def __reduce__(self) -> Any:
        return (exec, ("import os, pathlib; pathlib.Path(os.environ['CANARY']).touch()",))


def changed(folder: Path, change: Callable[[Any], object]) -> Path:
    """The artifact with another program.json, sealed again."""
    edit_json(folder / "program" / "program.json", change)
    reseal(folder)
    return folder


def padding(**changes: Any) -> dict[str, Any]:
    """What pads calls of the artifact's program to 8 samples, with changes."""
    return {"buckets": [[[8, 4]]], "axes": [[0, 0]], "cuts": [[0, 0, 0, 0]], "alike": [], **changes}


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"threads": 10**9}, "allowed are up to 1024 threads"),
        ({"threads": -1}, "allowed are up to 1024 threads"),
        ({"threads": 0}, "allowed are up to 1024 threads"),
        ({"threads": "2"}, "allowed are up to 1024 threads"),
        ({"threads": True}, "allowed are up to 1024 threads"),
        ({"threads": 2.0}, "allowed are up to 1024 threads"),
        ({"threads": 256, "instances": 256}, "allowed are up to 1024 threads"),
        ({"instances": 10**9}, "allowed are up to 1024 threads"),
        ({"instances": 0}, "allowed are up to 1024 threads"),
        ({"instances": "2"}, "allowed are up to 1024 threads"),
        ({"instances": 257}, "allowed are 2 to 256"),
        ({"heap_bytes": -1}, "heap_bytes is -1"),
        ({"heap_bytes": 1 << 60}, "heap of 1152921504606846976 bytes; allowed"),
        ({"heap_bytes": "1"}, "heap_bytes is '1'"),
        ({"device": "cuda:99999"}, "on 'cuda:99999'; allowed"),
        ({"device": "meta"}, "on 'meta'; allowed"),
        ({"device": 0}, "on 0; allowed"),
        ({"precision": "f4"}, "asks for 'f4'"),
        ({"precision": ["f32"]}, "asks for"),
        ({"inference_mode": "yes"}, "true or false"),
        ({"tf32": 1}, "true or false"),
        ({"run": "x"}, "unexpected keyword"),
        ({"options": {"cpp.cxx": "./evil"}}, "sets the option cpp.cxx"),
        ({"options": []}, "damaged"),
        ({"padding": padding(buckets=[[[1 << 40, 4]]])}, "pads to calls of 4,398,046,511,104 numbers; allowed"),
        ({"padding": padding(buckets=[[[1 << 40] * 200_000]])}, "a shape has 200,000 dimensions; allowed"),
        ({"padding": padding(buckets=[[[8, 4]]] * 33)}, "pads to 33 shapes; allowed"),
        ({"padding": padding(cuts=[[0, 0, 0, 1 << 80]])}, "whole numbers of 0 or more"),
        ({"padding": True}, "damaged"),
    ],
)
def test_a_setting_that_no_technique_asks_for_is_refused(artifact: Path, settings: dict[str, Any], reason: str) -> None:
    changed(artifact, lambda node: node["settings"].update(settings))

    with pytest.raises(ArtifactError, match=f"program.*{reason}"):
        load(artifact)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"axes": [[7, 0]]}, "pads dimension 0 of input 7"),
        ({"alike": [[0, 0, 0, 9]]}, "pads dimension 9 of input 0"),
        ({"buckets": [[[8, 4], [8, 4]]]}, "pads calls of 2 inputs"),
        ({"buckets": [[[8, 99]]]}, "pads to a call that the program does not take"),
        ({"cuts": [[3, 0, 0, 0]]}, "cuts answers by"),
    ],
)
def test_a_padding_of_calls_that_the_program_does_not_take_is_refused(
    artifact: Path, changes: dict[str, Any], reason: str
) -> None:
    changed(artifact, lambda node: node["settings"].update(padding=padding(**changes)))

    with pytest.raises(ArtifactError, match=reason):
        load(artifact)


def test_a_device_that_is_not_here_is_told(artifact: Path) -> None:
    changed(artifact, lambda node: node["settings"].update(device="cuda:999"))

    with pytest.raises(EnvironmentFault, match=r"cannot run on this machine: the program runs on cuda:999"):
        load(artifact)


@pytest.mark.parametrize(
    ("shapes", "reason"),
    [
        ("[[[1, 5]]]", "does not take"),
        ("[[[-1, 4]]]", "shorter than 0"),
        ("[[[" + "9" * 4000 + ", 4]]]", "longer than 1,099,511,627,776"),
        ("[[[1, 4], [1, 4]]]", "a call of 2 inputs, not of 1"),
        ("[" * 5000, "nested more than 64 levels"),
        ("[[[1e999, 4]]]", "finite"),
        ("[[" + ",".join(["[1, 4]"] * 40) + "]]", "a call of 40 inputs, not of 1"),
        ("[" + ",".join(["[[1, 4]]"] * 40) + "]", "has 40 shapes"),
        ('{"a": 1}', "no list of calls' shapes"),
        ("[[[" + "9" * 15 + ",9" * 200_000 + "]]]", "a shape has 200,001 dimensions"),
        ("[[[10000000000, 4]]]", "a call of 40,000,000,000 numbers; allowed"),
    ],
)
def test_exact_shapes_that_are_no_calls_of_the_program_are_refused(
    honest: dict[str, Path], tmp_path: Path, shapes: str, reason: str
) -> None:
    folder = copy(honest["openvino"], tmp_path / "fast")
    changed(folder, lambda node: node["settings"].update(options={"exact_shapes": shapes}))

    with pytest.raises(ArtifactError, match=f"the option exact_shapes .*{reason}"):
        load(folder)


def spec(**changes: Any) -> Callable[[Any], None]:
    return lambda node: node["signature"]["inputs"][0].update(changes)


def call(**changes: Any) -> Callable[[Any], None]:
    return lambda node: node["signature"]["call"].update(changes)


@pytest.mark.parametrize(
    "change",
    [
        spec(shape=[None, -4]), spec(shape=[None, 1 << 62]), spec(shape=[1 << 30, 1 << 30]), spec(shape="44"),
        spec(shape=[None, 4.0]), spec(shape=[None, True]), spec(shape=[1] * 100_000), spec(dtype="nn"),
        spec(dtype="float32.__class__"), spec(dtype=["float32"]), spec(dtype=None), spec(batch_axis=2),
        spec(batch_axis=-1), spec(batch_axis="0"), spec(name=None), call(kind="tensor"), call(kind="exec"),
        call(keys=["x", "x"], items=[{"kind": "tensor"}] * 2), call(keys=[]), call(keys=["a", "b"]), call(items=[]),
        call(items=[{"kind": "constant", "constant": [1]}]), call(type_name=5), call(keys=[1]),
        lambda node: node["signature"].update(positional=7), lambda node: node["signature"].update(positional=-1),
        lambda node: node["signature"].update(positional=True), lambda node: node["signature"].update(inputs=[]),
        lambda node: node["signature"].update(outputs=[]), lambda node: node["signature"].update(answer={}),
        lambda node: node.update(signature=None), lambda node: node.update(lineage=[1]),
        lambda node: node.update(lineage=None), lambda node: node.update(fused=[{"operator": 1, "layers": []}]),
        lambda node: node.update(quantized="linear"), lambda node: node.update(quantized=[1]),
        lambda node: node.update(stored_weights=[{"layer": "x", "form": "CSR", "dense_bytes": 1, "stored_bytes": -1}]),
        lambda node: node.update(stored_weights=[{"layer": "x", "form": 1, "dense_bytes": 1, "stored_bytes": 1}]),
        lambda node: node.update(form="exec"), lambda node: node.update(form=["torch"]),
        lambda node: node.update(schema=True), lambda node: node.update(schema=2), lambda node: node.pop("settings"),
    ],
)  # fmt: skip
def test_a_description_that_no_program_has_is_refused(artifact: Path, change: Callable[[Any], object]) -> None:
    changed(artifact, change)

    with pytest.raises(ArtifactError, match=r"program\.json (is damaged|has another schema)"):
        load(artifact)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (spec(shape=[None, 5]), r"holds calls that the program does not take: .* allowed is \[any, 5\]"),
        (spec(dtype="float64"), "holds calls that the program does not take: .* allowed is float64"),
        (spec(shape=[2, 4], batch_axis=None), ""),
        (call(keys=["other"]), ""),
    ],
)
def test_a_description_that_is_another_programs_never_gives_a_wrong_answer(
    artifact: Path, change: Callable[[Any], object], reason: str
) -> None:
    changed(artifact, change)

    if reason:
        with pytest.raises(ArtifactError, match=reason):
            load(artifact)
    else:
        load(artifact)


def test_the_null_runtime_in_the_place_of_a_program_is_refused(artifact: Path) -> None:
    for path in (artifact / "program").glob("[!p]*"):
        path.unlink()
    edit_json(artifact / "manifest.json", lambda node: node.update(form="null"))
    changed(artifact, lambda node: (node.update(form="null"), node["signature"]["outputs"][0].update(shape=[1 << 40])))

    with pytest.raises(ArtifactError, match=r"program cannot be used|golden call 0"):
        load(artifact)


def edit_text(name: str, old: str, new: str) -> Callable[[Members], None]:
    def edit(members: Members) -> None:
        assert old.encode() in members[name]
        members[name] = members[name].replace(old.encode(), new.encode())

    return edit


def pickled_weight(members: Members) -> None:
    config = json.loads(members[WEIGHTS])
    first = next(iter(config["config"].values()))
    first["use_pickle"] = True
    members[WEIGHTS] = json.dumps(config).encode()
    members["model/data/weights/weight_0"] = pickle.dumps(Payload())


def every_size(size: int) -> Callable[[Members], None]:
    """Weights that claim other sizes than they have."""

    def edit(members: Members) -> None:
        config = json.loads(members[WEIGHTS])
        for entry in config["config"].values():
            for dimension in (*entry["tensor_meta"]["sizes"], *entry["tensor_meta"]["strides"]):
                dimension["as_int"] = size
        members[WEIGHTS] = json.dumps(config).encode()

    return edit


def offset(members: Members) -> None:
    config = json.loads(members[WEIGHTS])
    for entry in config["config"].values():
        entry["tensor_meta"]["storage_offset"] = {"as_int": 1 << 40}
    members[WEIGHTS] = json.dumps(config).encode()


def added(name: str, content: bytes = b"x") -> Callable[[Members], None]:
    return lambda members: members.update({name: content})


RELU = "torch.ops.aten.relu.default"
PLAIN = "not part of a plain exported program"


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (pickled_weight, "pickled"),
        (added("model/data/weights/evil.pkl", pickle.dumps(Payload())), PLAIN),
        (added("model/data/constants/custom_obj_0", pickle.dumps(Payload())), PLAIN),
        (added("model/data/sample_inputs/model.pt", pickle.dumps(Payload())), "pickle that may run code"),
        (added("model/data/aotinductor/model/evil.so"), PLAIN),
        (added("model/extra/libevil.so"), PLAIN),
        (added("model/executorch/model.pte"), PLAIN),
        (added("model/../../escape"), PLAIN),
        (added("model/data/weights/..\\escape"), PLAIN),
        (added("/etc/absolute"), "not one .pt2 archive"),
        (added("other/models/model.json"), "not one .pt2 archive"),
        (edit_text(GRAPH, RELU, "torch.ops.aten.save.default"), "holds the operator"),
        (edit_text(GRAPH, RELU, "torch.ops.aten.from_file.default"), "holds the operator"),
        (edit_text(GRAPH, RELU, "torch.ops.aten.set_data.default"), "holds the operator"),
        (edit_text(GRAPH, RELU, "torch.ops.aten._sparse_csr_tensor_unsafe.default"), "holds the operator"),
        (edit_text(GRAPH, RELU, "torch.os.system"), "holds the operator"),
        (edit_text(GRAPH, RELU, "_operator.methodcaller"), "holds the operator"),
        (edit_text(GRAPH, RELU, "_operator.call"), "holds the operator"),
        (edit_text(GRAPH, RELU, "torch.ops.aten.no_such_operator.default"), "cannot be read as an exported program"),
        (edit_text(GRAPH, '"relu"', '"relu=open(1)"'), "name"),
        (edit_text(GRAPH, "Symbol(", "__import__('os').system("), "expression"),
        (
            edit_text(GRAPH, '"schema_version": {', '"schema_version": {"x": ' + "[" * 5000 + "]" * 5000 + ","),
            "recursion",
        ),
        (every_size(1 << 40), "cannot be read as an exported program"),
        (every_size(-1), "cannot be read as an exported program"),
        (offset, "cannot be read as an exported program"),
    ],
)
def test_a_graph_with_more_than_arithmetic_in_it_is_refused_and_nothing_runs(
    artifact: Path, canary: Path, edit: Callable[[Members], None], reason: str
) -> None:
    path = artifact / "program" / "model.pt2"
    edit_members(path, edit)

    with pytest.raises(ArtifactError, match=r"model\.pt2 differs from its digest"):
        load(artifact)
    reseal(artifact)
    with pytest.raises(ArtifactError, match=rf"model\.pt2 .*{reason}"):
        load(artifact)


def test_a_program_that_fails_when_it_is_called_is_refused_by_name(artifact: Path) -> None:
    edit_members(artifact / "program" / "model.pt2", edit_text(GRAPH, RELU, "torch.ops.aten.det.default"))
    reseal(artifact)

    with pytest.raises(ArtifactError, match=r"program cannot be used: RuntimeError: .*square"):
        load(artifact)


def test_a_zip_bomb_is_refused_before_it_is_unpacked(artifact: Path) -> None:
    path = artifact / "program" / "model.pt2"
    edit_members(path, added("model/data/weights/weight_9", bytes(64 << 20)), zipfile.ZIP_DEFLATED)
    reseal(artifact)

    with pytest.raises(ArtifactError, match="encrypted or compressed"):
        load(artifact)


def test_a_member_that_claims_gigabytes_is_refused(artifact: Path) -> None:
    path = artifact / "program" / "model.pt2"
    with zipfile.ZipFile(path) as archive:
        size, names = archive.getinfo(GRAPH).file_size, archive.namelist()
    data = path.read_bytes()
    claimed = data.replace(size.to_bytes(4, "little"), (0xFFFFFFFE).to_bytes(4, "little"))
    assert GRAPH in names and claimed != data
    path.write_bytes(claimed)
    reseal(artifact)

    with pytest.raises(ArtifactError, match=r"model\.pt2 "):
        load(artifact)


@dataclass
class Gadget:
    """A class of the user's whose making does something: nothing that a file says may make one."""

    command: str

    def __post_init__(self) -> None:
        exec(self.command)


@dataclass
class Plain:
    """A class of the user's that only holds."""

    command: str


def answer_of(kind: str) -> Any:
    touch = "import os, pathlib; pathlib.Path(os.environ['CANARY']).touch()"
    node = {
        "kind": "record",
        "type_name": kind,
        "keys": ["command"],
        "items": [{"kind": "constant", "constant": touch}],
    }
    return Structure.from_json(node).build([])


def test_a_class_that_a_file_names_is_only_made_where_that_runs_nothing(canary: Path) -> None:
    here = __name__
    assert here in sys.modules

    assert isinstance(answer_of(f"{here}:Gadget"), Record)
    assert isinstance(answer_of("subprocess:Popen"), Record)
    assert isinstance(answer_of("os:system"), Record)
    assert isinstance(answer_of(f"{here}:Plain"), Plain)


@pytest.mark.parametrize("constant", [float("inf"), float("-inf")])
def test_a_constant_that_json_has_no_number_for_is_kept_all_the_same(constant: float) -> None:
    node = json.loads(json.dumps(Structure("constant", constant=constant).to_json(), allow_nan=False))

    assert Structure.from_json(node) == Structure("constant", constant=constant)


def test_reasons_name_the_artifact(artifact: Path) -> None:
    changed(artifact, spec(shape=[None, 5]))

    with pytest.raises(ArtifactError, match=re.escape(str(artifact))):
        load(artifact)
