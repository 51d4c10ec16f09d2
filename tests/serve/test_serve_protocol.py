"""The protocol's codec: what is read is what was sent, and nothing that does not fit gets past it."""

from __future__ import annotations

import gzip
import json
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vivace.core.errors import UsageError
from vivace.core.signature import Signature, TensorSpec
from vivace.core.structure import Structure
from vivace.serve.protocol.answers import Writer
from vivace.serve.protocol.bodies import Body, decompress, split
from vivace.serve.protocol.datatypes import DATATYPES
from vivace.serve.protocol.limits import Limits, check_json
from vivace.serve.protocol.model import Model
from vivace.serve.protocol.refusal import Refusal
from vivace.serve.protocol.requests import Reader

LIMITS = Limits()
TENSOR = Structure("tensor")


def model(*inputs: TensorSpec, outputs: tuple[TensorSpec, ...] = (TensorSpec("y", "float32", (None, 2), 0),)) -> Model:
    call = Structure("dict", (TENSOR,) * len(inputs), tuple(spec.name for spec in inputs))
    return Model.of("m", Signature(call, len(inputs), inputs, TENSOR, outputs))


ONE = model(TensorSpec("x", "float32", (None, 3), 0))
TWO = model(TensorSpec("x", "float32", (None, 3), 0), TensorSpec("n", "int64", (None,), 0))


def document(**changes):
    entry = {"name": "x", "datatype": "FP32", "shape": [2, 3], "data": [1, 2, 3, 4, 5, 6]}
    return {"inputs": [entry | changes]}


def read(asked, binary=b"", of=ONE, limits=LIMITS):
    return Reader(of, limits).read(Body(json.dumps(asked).encode(), memoryview(binary)))


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_binary_tensors_of_every_type_come_through_unchanged_in_any_order(data):
    kinds = data.draw(st.lists(st.sampled_from(DATATYPES), min_size=1, max_size=4))
    rows = data.draw(st.integers(1, 5))
    widths = [data.draw(st.integers(0, 4)) for _ in kinds]
    specs = [
        TensorSpec(f"t{i}", kind.torch, (None, width), 0)
        for i, (kind, width) in enumerate(zip(kinds, widths, strict=True))
    ]
    parts = [
        data.draw(st.binary(min_size=n, max_size=n))
        for n in (rows * w * k.bytes for w, k in zip(widths, kinds, strict=True))
    ]
    order = data.draw(st.permutations(range(len(kinds))))
    asked = {
        "inputs": [
            {"name": f"t{i}", "datatype": kinds[i].name, "shape": [rows, widths[i]],
             "parameters": {"binary_data_size": len(parts[i])}}
            for i in order
        ]
    }  # fmt: skip

    found = read(asked, b"".join(parts[i] for i in order), model(*specs))

    assert [bytes(part) for part in found.parts] == parts
    assert found.layout.samples == rows


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_json_tensors_are_what_numpy_makes_of_them(data):
    kind = data.draw(st.sampled_from([kind for kind in DATATYPES if kind.numpy]))
    target = np.dtype(kind.numpy)
    elements = {
        "b": st.booleans(),
        "f": st.floats(width=32, allow_nan=False, allow_infinity=False) | st.integers(-1000, 1000),
    }
    whole = st.integers(int(np.iinfo(target).min), int(np.iinfo(target).max)) if target.kind in "iu" else st.nothing()
    element = elements.get(target.kind, whole)
    rows = data.draw(st.lists(st.lists(element, min_size=2, max_size=2), min_size=1, max_size=4))
    nested = data.draw(st.booleans())
    values = rows if nested else [value for row in rows for value in row]
    asked = {"inputs": [{"name": "x", "datatype": kind.name, "shape": [len(rows), 2], "data": values}]}

    found = read(asked, of=model(TensorSpec("x", kind.torch, (None, 2), 0)))

    exact = np.array(rows, object)  # numpy's own choice for integers above 2**63 can be float64
    assert bytes(found.parts[0]) == exact.astype(target).tobytes()


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=200), st.none() | st.binary(max_size=5) | st.integers(0, 300).map(lambda n: str(n).encode()))
def test_any_bytes_are_read_or_refused(data, header_length):
    try:
        Reader(TWO, LIMITS).read(split(data, header_length))
    except Refusal as refusal:
        assert 400 <= refusal.status < 500
        assert refusal.message


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None, max_examples=200)
@given(st.sampled_from(["name", "datatype", "shape", "data", "parameters"]), JSON)
def test_any_json_in_the_place_of_a_field_is_read_or_refused(field, value):
    try:
        text = json.dumps(document(**{field: value})).encode()
        Reader(ONE, LIMITS).read(Body(text, memoryview(b"")))
    except Refusal as refusal:
        assert refusal.status in (400, 413)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"datatype": "FP64"}, "x has datatype 'FP64'; allowed is FP32"),
        ({"shape": [2, 4]}, r"x has shape \[2, 4\]; allowed is \[any, 3\]"),
        ({"shape": [-1, 3]}, "allowed is"),
        ({"shape": [True, 3]}, "whole numbers"),
        ({"shape": [1] * 9}, "at most 8"),
        ({"shape": [0, 3], "data": []}, "x holds no samples; give at least one"),
        ({"shape": [10**15, 3]}, "allowed are 67108864"),
        ({"data": [1, 2, 3]}, "x has 3 values; its shape"),
        ({"data": [1, 2, 3, 4, 5, "6"]}, "values of type str; FP32 takes none"),
        ({"data": [1, 2, 3, 4, 5, 1e300]}, "outside of FP32"),
        ({"data": None}, "x has no data"),
        ({"parameters": {"binary_data_size": 24.0}}, "binary_data_size of x is 24.0; 6 elements of FP32 take 24"),
        ({"name": "y"}, "received the inputs y; give each of these once: x: FP32"),
    ],
)
def test_what_does_not_fit_is_told_with_what_is_allowed(changes, message):
    with pytest.raises(Refusal, match=message):
        read(document(**changes))


@pytest.mark.parametrize(
    ("kind", "value"), [("INT8", 128), ("UINT8", -1), ("INT64", 2**63), ("BOOL", 1), ("INT32", True)]
)
def test_a_number_that_its_type_cannot_hold_is_refused(kind, value):
    torch_name = next(one.torch for one in DATATYPES if one.name == kind)
    asked = {"inputs": [{"name": "x", "datatype": kind, "shape": [1], "data": [value]}]}
    with pytest.raises(Refusal):
        read(asked, of=model(TensorSpec("x", torch_name, (None,), 0)))


def test_inputs_that_disagree_on_the_number_of_samples_are_refused():
    asked = document()
    asked["inputs"].append({"name": "n", "datatype": "INT64", "shape": [3], "data": [1, 2, 3]})
    with pytest.raises(Refusal, match="x has 2, n has 3; give the same number"):
        read(asked, of=TWO)


def test_binary_data_that_is_too_short_or_too_long_is_refused():
    asked = document(parameters={"binary_data_size": 24})
    assert len(read(asked, bytes(24)).parts[0]) == 24
    for size in (23, 25):
        with pytest.raises(Refusal, match=f"{size} bytes follow the JSON part"):
            read(asked, bytes(size))


def test_a_layout_that_was_seen_before_is_not_parsed_again_and_its_bytes_are_still_checked():
    reader = Reader(ONE, LIMITS)
    text = json.dumps(document(parameters={"binary_data_size": 24})).encode()
    first = reader.read(Body(text, memoryview(bytes(24))))
    second = reader.read(Body(text, memoryview(b"\x01" * 24)))
    assert second.layout is first.layout
    assert bytes(second.parts[0]) == b"\x01" * 24
    with pytest.raises(Refusal, match="23 bytes follow"):
        reader.read(Body(text, memoryview(bytes(23))))


def test_a_raw_body_is_one_sample_of_a_model_with_one_input():
    found = Reader(ONE, LIMITS).read(Body(None, memoryview(bytes(12))))
    assert found.layout.shapes == ((1, 3),)
    with pytest.raises(Refusal, match="one input of a fixed shape"):
        Reader(TWO, LIMITS).read(Body(None, memoryview(bytes(12))))


def test_an_answer_can_be_asked_for_in_part_as_binary():
    outputs = (TensorSpec("y", "float32", (None, 2), 0), TensorSpec("k", "int32", (None,), 0))
    served = model(TensorSpec("x", "float32", (None, 3), 0), outputs=outputs)
    asked = document() | {"outputs": [{"name": "k"}, {"name": "y", "parameters": {"binary_data": True}}], "id": "7"}
    y, k = np.float32([[1, 2]]).tobytes(), np.int32([5]).tobytes()

    answer = Writer(served).write(read(asked, of=served).layout, ((1, 2), (1,)), (y, k))

    head = json.loads(answer.body[: answer.json_bytes])
    assert head == {
        "model_name": "m", "model_version": "1", "id": "7",
        "outputs": [
            {"name": "k", "datatype": "INT32", "shape": [1], "data": [5]},
            {"name": "y", "datatype": "FP32", "shape": [1, 2], "parameters": {"binary_data_size": 8}},
        ],
    }  # fmt: skip
    assert answer.body[answer.json_bytes :] == y


def test_an_answer_that_json_cannot_carry_is_refused_and_not_changed():
    layout = read(document()).layout
    with pytest.raises(Refusal, match="NaN or infinite values, which JSON cannot carry; ask for it as binary"):
        Writer(ONE).write(layout, ((1, 2),), (np.float32([[1, np.nan]]).tobytes(),))
    half = model(TensorSpec("x", "float32", (None, 3), 0), outputs=(TensorSpec("y", "bfloat16", (None, 2), 0),))
    with pytest.raises(Refusal, match="y is BF16, which JSON cannot carry"):
        Writer(half).write(layout, ((1, 2),), (bytes(4),))


def test_an_unknown_output_and_one_asked_for_twice_are_refused():
    with pytest.raises(Refusal, match="there is no output 'z'; there are y"):
        read(document() | {"outputs": [{"name": "z"}]})
    with pytest.raises(Refusal, match="asked for twice"):
        read(document() | {"outputs": [{"name": "y"}, {"name": "y"}]})


@pytest.mark.parametrize(("encoding", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
def test_compressed_bodies_are_unpacked_up_to_the_limit_and_no_further(encoding, pack):
    limits = Limits(body_bytes=1000)
    assert decompress(pack(b"a" * 1000), encoding, limits) == b"a" * 1000
    with pytest.raises(Refusal, match="allowed are 1000") as caught:
        decompress(pack(b"a" * 1_000_000), encoding, limits)
    assert caught.value.status == 413
    with pytest.raises(Refusal, match="cut short or followed by others"):
        decompress(pack(b"a" * 100)[:-4], encoding, limits)
    with pytest.raises(Refusal, match="cut short or followed by others"):
        decompress(pack(b"a") + b"more", encoding, limits)
    with pytest.raises(Refusal, match="allowed are gzip, deflate and identity"):
        decompress(b"", "br", limits)


def test_json_that_is_too_deep_or_too_long_is_refused_before_it_is_parsed():
    check_json(b"[" * 64 + b"]" * 64, LIMITS)
    check_json(b'["' + b"[" * 1000 + b'"]', LIMITS)  # brackets in a text are none
    check_json(b"[" + b"[]," * 1000 + b"[]]", LIMITS)
    with pytest.raises(Refusal, match="nested more than 64 deep"):
        check_json(b"[" * 65 + b"]" * 65, LIMITS)
    with pytest.raises(Refusal, match="send tensors as binary"):
        check_json(b" " * (LIMITS.json_bytes + 1), LIMITS)


@pytest.mark.parametrize("length", [b"x", b"-1", b"99999999999999", b"4"])
def test_a_header_length_that_cannot_be_is_refused(length):
    with pytest.raises(Refusal, match="give the bytes of"):
        split(b"abc", length)


def test_a_tensor_type_without_a_name_in_the_protocol_cannot_be_served():
    with pytest.raises(UsageError, match="x has dtype complex64, which the Open Inference Protocol cannot carry"):
        model(TensorSpec("x", "complex64", (None,), 0))
