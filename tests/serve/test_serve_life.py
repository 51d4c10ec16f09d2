"""A server's life: workers die, artifacts change, clients misbehave, and every good request is answered rightly."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import numpy as np
import pytest
import torch
from served import COMMAND, Classifier, Server, inputs, letters_artifact, running, until


def message(codes, scale, extra=(), path="/v2/models/letters/infer"):
    """A whole HTTP request with binary tensors."""
    parts = [np.asarray(codes).tobytes(), np.asarray(scale).tobytes()]
    document = {
        "inputs": [
            {"name": name, "datatype": kind, "shape": list(leaf.shape), "parameters": {"binary_data_size": len(part)}}
            for name, kind, leaf, part in zip(("codes", "scale"), ("INT64", "FP32"), (codes, scale), parts, strict=True)
        ],
        "outputs": [{"name": "scores"}],
    }
    text = json.dumps(document).encode()
    body = text + b"".join(parts)
    head = [f"POST {path} HTTP/1.1", "Host: x", f"Content-Length: {len(body)}", *extra]
    return "\r\n".join([*head, f"Inference-Header-Content-Length: {len(text)}", "", ""]).encode() + body


def exchange(server: Server, data: bytes, seconds: float = 40.0) -> tuple[int, bytes]:
    """Send bytes on a connection of its own; status and body of the answer, 0 where there is none."""
    with socket.create_connection(server.address, timeout=seconds) as line:
        line.sendall(data)
        return receive(line)


def receive(line: socket.socket) -> tuple[int, bytes]:
    found = b""
    while b"\r\n\r\n" not in found:
        part = line.recv(65536)
        if not part:
            return 0, found
        found += part
    head, _, body = found.partition(b"\r\n\r\n")
    length = next(int(row[15:]) for row in head.lower().split(b"\r\n") if row.startswith(b"content-length:"))
    while len(body) < length:
        body += line.recv(65536)
    return int(head[9:12]), body


def scores(body: bytes) -> np.ndarray:
    return np.array(json.loads(body)["outputs"][0]["data"], np.float32)


def wanted(codes, scale, seed=0) -> np.ndarray:
    with torch.no_grad():
        return Classifier(seed)(codes, scale)["scores"].numpy().ravel()


def answers_rightly(server: Server, seed: int = 0) -> bool:
    call = inputs(1, seed=3)
    status, body = exchange(server, message(*call))
    return status == 200 and np.allclose(scores(body), wanted(*call, seed), rtol=1e-4, atol=1e-5)


def read(server: Server, path: str) -> tuple[int, bytes]:
    try:
        with urlopen(f"http://{server.url}{path}") as answer:
            return answer.status, answer.read()
    except HTTPError as error:
        with error:
            return error.code, error.read()


def counted(server: Server, name: str) -> float:
    rows = read(server, "/metrics")[1].decode().splitlines()
    return sum(float(row.rpartition(" ")[2]) for row in rows if row.startswith(name))


def test_a_worker_killed_in_the_middle_is_replaced_and_no_good_request_is_lost(letters, tmp_path):
    with running(letters, tmp_path / "log.txt") as server:
        calls = [inputs(1, seed) for seed in range(40)]
        answers: dict[int, tuple[int, bytes]] = {}

        def ask(number: int) -> None:
            answers[number] = exchange(server, message(*calls[number]))

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(len(calls))]
        for number, thread in enumerate(threads):
            if number == 20:
                os.kill(server.told["workers"][0], signal.SIGKILL)
            thread.start()
        for thread in threads:
            thread.join()

        assert {status for status, _ in answers.values()} == {200}
        for number, (_, body) in answers.items():
            np.testing.assert_allclose(scores(body), wanted(*calls[number]), rtol=1e-4, atol=1e-5)
        assert counted(server, "vivace_worker_restarts_total") == 1
        assert read(server, "/v2/health/live")[0] == 200


def test_sighup_serves_the_artifact_that_lies_there_now_and_keeps_the_old_one_when_it_is_damaged(tmp_path):
    first = letters_artifact(tmp_path / "first", tmp_path / "work1", seed=0)
    second = letters_artifact(tmp_path / "second", tmp_path / "work2", seed=1)
    damaged = shutil.copytree(second, tmp_path / "damaged")
    (damaged / "program" / "model.pt2").write_bytes(b"nothing")
    current = tmp_path / "current"
    current.symlink_to(first)
    with running(current, tmp_path / "log.txt") as server:
        assert answers_rightly(server, seed=0)

        point(current, damaged)
        server.process.send_signal(signal.SIGHUP)
        assert until(lambda: counted(server, 'vivace_reloads_total{result="failed"}') == 1)
        assert answers_rightly(server, seed=0)
        assert read(server, "/v2/health/ready")[0] == 200

        point(current, second)
        server.process.send_signal(signal.SIGHUP)
        assert until(lambda: counted(server, 'vivace_reloads_total{result="ok"}') == 1)
        assert answers_rightly(server, seed=1)
        assert server.end() == 0


def point(link: Path, target: Path) -> None:
    beside = link.with_name("beside")
    beside.symlink_to(target)
    beside.replace(link)


def test_sigterm_answers_what_was_accepted_turns_readiness_off_and_ends_with_0(letters, tmp_path):
    with running(letters, tmp_path / "log.txt", "--grace", "1s") as server:
        whole = message(*inputs(1, seed=3))
        with socket.create_connection(server.address, timeout=20) as line:
            line.sendall(whole[:-4])  # accepted, and not complete yet
            assert until(lambda: read(server, "/v2/health/ready")[0] == 200)
            server.process.send_signal(signal.SIGTERM)
            assert until(lambda: read(server, "/v2/health/ready")[0] == 503)
            line.sendall(whole[-4:])
            status, body = receive(line)
        assert status == 200
        np.testing.assert_allclose(scores(body), wanted(*inputs(1, seed=3)), rtol=1e-4, atol=1e-5)
        assert server.process.wait(20) == 0


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\x00\x01garbage\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX-Long: " + b"a" * 20_000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX-Endless: " + b"a" * 400_000, 431),
        (b"POST /v2/models/letters/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\nabc", 413),
        (b"DELETE /v2/models/letters HTTP/1.1\r\nHost: x\r\n\r\n", 405),
        (b"GET /../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n", 404),
        (b"POST /v2/models/letters/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n[]", 400),
    ],
)
def test_what_no_client_should_send_is_refused_and_the_server_goes_on(server, data, status):
    assert exchange(server, data)[0] == status
    assert answers_rightly(server)


def test_a_client_that_hangs_up_is_not_computed_for(letters, tmp_path):
    with running(letters, tmp_path / "log.txt", "--batch-window", "2s", "--timeout", "20s") as server:
        before = counted(server, 'vivace_dropped_total{reason="disconnected"}')
        with socket.create_connection(server.address) as line:
            line.sendall(message(*inputs(1)))
        assert until(lambda: counted(server, 'vivace_dropped_total{reason="disconnected"}') == before + 1, 10)
        assert answers_rightly(server)


def test_a_token_lets_in_who_has_it_and_health_is_open(letters, tmp_path):
    token = "0123456789abcdef0123"
    with running(letters, tmp_path / "log.txt", VIVACE_TOKEN=token) as server:
        assert read(server, "/v2/health/live")[0] == 200
        assert read(server, "/metrics")[0] == 401
        assert exchange(server, message(*inputs(1)))[0] == 401
        assert exchange(server, message(*inputs(1), extra=["Authorization: Bearer wrong"]))[0] == 401
        assert exchange(server, message(*inputs(1), extra=[f"Authorization: Bearer {token}"]))[0] == 200


def test_what_cannot_be_served_is_one_clear_error(letters, server, tmp_path):
    cases = {
        ("serve", str(tmp_path)): (5, "is not an artifact"),
        ("serve", str(letters), "--host", "0.0.0.0"): (2, "--token-file"),
        ("serve", str(letters), "--port", str(server.address[1])): (5, "is taken by another program"),
        ("serve", str(letters), "--host", "0.0.0.0", "--token-file", str(short(tmp_path))): (2, "16 or more"),
        ("bench-serve", "http://127.0.0.1:9", "--model", "x"): (5, "gave no metadata"),
    }
    for words, (code, told) in cases.items():
        done = subprocess.run([sys.executable, "-c", COMMAND, *words], capture_output=True, text=True, timeout=100)
        assert (done.returncode, told in done.stderr) == (code, True), done.stderr


def short(folder: Path) -> Path:
    file = folder / "token.txt"
    file.write_text("short\n")
    return file


def test_an_artifact_that_does_not_say_whether_it_is_batch_invariant_is_not_batched(tmp_path):
    artifact = letters_artifact(tmp_path / "fast", tmp_path / "work", batch_invariant=None)
    with running(artifact, tmp_path / "log.txt") as server:
        assert server.told["batching"]["most_samples"] == 1
        assert "does not say" in server.told["batching"]["why_not"]
        assert answers_rightly(server)


@pytest.mark.slow
def test_bench_serve_drives_an_artifact_and_compares_two(letters):
    def bench(*words: str) -> dict:
        command = [sys.executable, "-c", COMMAND, "bench-serve", *words, "--json"]
        return json.loads(subprocess.run(command, capture_output=True, text=True, check=True, timeout=200).stdout)

    alone = bench(str(letters), "--time", "3s", "--connections", "4")
    assert alone["saturated"]["per_second"] > 50
    assert alone["tail"]["over_p99"] <= alone["tail"]["over_p50"]
    assert alone["open_loop"]["failed"] == alone["saturated"]["failed"] == 0
    assert abs(alone["open_loop"]["per_second"] / alone["open_loop"]["asked_per_second"] - 1) < 0.3

    both = bench(str(letters), str(letters), "--time", "6s", "--connections", "4")
    assert both["served_speedup"]["low"] < 1.2
    assert both["served_speedup"]["high"] > 0.8
    assert both["model_speedup"]["value"] == 2.0


@pytest.mark.slow
def test_a_short_soak_of_good_and_bad_clients_with_a_killed_worker_loses_nothing(letters, tmp_path):
    from soak import Soak

    with running(letters, tmp_path / "log.txt", "--workers", "2") as server:
        calls = [inputs(1, seed) for seed in range(16)]
        good = [(message(*call), wanted(*call)) for call in calls]
        found = Soak(server.address, good, lambda body: scores(body), server.told["workers"][:1]).run(1000)
    assert found["wrong"] == found["lost"] == 0
    assert found["good"] >= 400
    assert found["bad"] >= 100
    assert found["killed"] == 1


def test_a_client_that_sends_slowly_keeps_nobody_else_waiting(server):
    head = b"POST /v2/models/letters/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nab"
    with socket.create_connection(server.address, timeout=5) as line:
        line.sendall(head)
        assert answers_rightly(server)


def test_a_request_by_urllib_with_json_alone_is_answered(server):
    call = inputs(2, seed=5)
    document = {
        "inputs": [
            {"name": "codes", "datatype": "INT64", "shape": [2, 6], "data": call[0].tolist()},
            {"name": "scale", "datatype": "FP32", "shape": [2, 1], "data": call[1].ravel().tolist()},
        ]
    }
    with urlopen(Request(f"http://{server.url}/v2/models/letters/infer", json.dumps(document).encode())) as answer:
        found = json.load(answer)
    np.testing.assert_allclose(np.array(found["outputs"][0]["data"]), wanted(*call), rtol=1e-4, atol=1e-5)
