"""The real tritonclient against a real server: the protocol as existing clients speak it."""

from __future__ import annotations

import gzip
import json
import warnings

import numpy as np
import pytest
import torch
from served import CLASSES, Classifier, Server, inputs

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    http = pytest.importorskip("tritonclient.http")

from tritonclient.utils import InferenceServerException

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")


@pytest.fixture
def client(server: Server):
    with http.InferenceServerClient(server.url, concurrency=8) as opened:
        yield opened


def given(codes, scale, binary=True):
    first = http.InferInput("codes", list(codes.shape), "INT64")
    second = http.InferInput("scale", list(scale.shape), "FP32")
    first.set_data_from_numpy(np.asarray(codes), binary_data=binary)
    second.set_data_from_numpy(np.asarray(scale), binary_data=binary)
    return [second, first]


def expected(codes, scale):
    with torch.no_grad():
        return Classifier()(codes, scale)


def test_the_server_says_that_it_is_live_ready_and_what_it_serves(client):
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("letters")
    assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
    metadata = client.get_model_metadata("letters", "1")
    assert metadata["inputs"] == [
        {"name": "codes", "datatype": "INT64", "shape": [-1, 6]},
        {"name": "scale", "datatype": "FP32", "shape": [-1, 1]},
    ]
    assert [entry["name"] for entry in metadata["outputs"]] == ["scores", "norm"]


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("count", [1, 3])
def test_an_inference_equals_the_model_whatever_the_tensors_travel_as(client, binary, count):
    codes, scale = inputs(count, seed=7)
    asked = [http.InferRequestedOutput(name, binary_data=binary) for name in ("norm", "scores")]

    result = client.infer("letters", given(codes, scale, binary), outputs=asked, request_id="mine")

    assert result.get_response()["id"] == "mine"
    want = expected(codes, scale)
    np.testing.assert_allclose(result.as_numpy("scores"), want["scores"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(result.as_numpy("norm"), want["norm"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_a_compressed_body_is_unpacked(client, algorithm):
    codes, scale = inputs(2, seed=8)

    result = client.infer("letters", given(codes, scale), request_compression_algorithm=algorithm)

    np.testing.assert_allclose(result.as_numpy("scores"), expected(codes, scale)["scores"], rtol=1e-4, atol=1e-5)


def test_many_clients_at_once_get_each_their_own_answer(client):
    calls = [inputs(1, seed) for seed in range(60)]

    waiting = [client.async_infer("letters", given(*call)) for call in calls]

    for call, request in zip(calls, waiting, strict=True):
        scores = request.get_result().as_numpy("scores")
        np.testing.assert_allclose(scores, expected(*call)["scores"], rtol=1e-4, atol=1e-5)


def test_a_poisoned_request_fails_alone_and_its_neighbours_are_answered(client):
    calls = [inputs(1, seed) for seed in range(24)]
    for poisoned in (5, 11):
        calls[poisoned][0][0, 0] = 999

    waiting = [client.async_infer("letters", given(*call)) for call in calls]

    for number, (call, request) in enumerate(zip(calls, waiting, strict=True)):
        if number in (5, 11):
            with pytest.raises(InferenceServerException, match="could not be computed; tell whoever runs"):
                request.get_result()
        else:
            scores = request.get_result().as_numpy("scores")
            np.testing.assert_allclose(scores, expected(*call)["scores"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda first, second: [first], "give each of these once"),
        (lambda first, second: [first, first], "give each of these once"),
        (lambda first, second: [first, renamed(second)], "received the inputs scale, other"),
    ],
)
def test_wrong_inputs_are_told_what_the_model_takes(client, change, message):
    with pytest.raises(InferenceServerException, match=message):
        client.infer("letters", change(*given(*inputs(1))))


def renamed(tensor):
    tensor._name = "other"
    return tensor


def test_an_unknown_model_and_an_unknown_version_say_what_there_is(client):
    with pytest.raises(InferenceServerException, match=r"there is letters of version 1"):
        client.infer("nothing", given(*inputs(1)))
    with pytest.raises(InferenceServerException, match=r"of version 2; there is letters"):
        client.get_model_metadata("letters", "2")


def test_the_metrics_show_where_the_time_went_and_the_page_what_is_served(server, client):
    from urllib.request import urlopen

    client.infer("letters", given(*inputs(1)))
    metrics = urlopen(f"http://{server.url}/metrics").read().decode()
    page = urlopen(f"http://{server.url}/").read().decode()
    for name in ("request_seconds", "queue_seconds", "compute_seconds", "batch_size"):
        assert f"vivace_{name}_bucket" in metrics
    assert "letters" in page
    assert "HELD" in page


def test_a_raw_body_is_refused_where_the_model_has_two_inputs(server):
    from urllib.error import HTTPError
    from urllib.request import Request, urlopen

    body = gzip.compress(b"abcd")
    headers = {"Inference-Header-Content-Length": "0", "Content-Encoding": "gzip"}
    with pytest.raises(HTTPError) as caught:
        urlopen(Request(f"http://{server.url}/v2/models/letters/infer", body, headers))
    with caught.value as answer:
        assert answer.code == 400
        assert "one input of a fixed shape" in json.load(answer)["error"]


def test_the_scores_have_their_shape(client):
    assert client.infer("letters", given(*inputs(2))).as_numpy("scores").shape == (2, CLASSES)
