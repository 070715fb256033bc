"""A server in a process of its own, with a model that no framework runs: what happens on its connections."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from xlmr_core.cli import main
from xlmr_core.cli.parser import UsageError
from xlmr_core.cli.serve import KEY, _key, _named, _tasks

pytest.importorskip("uvicorn", reason="the server needs the extra serve")

from tests.core.served_models import embedder, offline
from tests.core.served_process import HEAD, ROOT, Server
from xlmr_core.errors import XLMRError
from xlmr_core.serving import serve


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    running = Server(settings="read_timeout=0.5, max_connections=40")
    yield running
    errors = running.end()
    assert running.process.returncode == 0 and errors == "", errors


def test_it_answers(server: Server) -> None:
    status, found = server.ask(["a", "b"])
    assert status == 200 and isinstance(found, list) and len(found) == 2


@pytest.mark.parametrize(
    "begins",
    [b"", b"POST /embed HT", b"POST /embed HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n"],
    ids=["nothing", "half a line", "half a head"],
)
def test_a_client_that_does_not_go_on_is_left(server: Server, begins: bytes) -> None:
    with server.connect() as silent:
        silent.sendall(begins)
        assert server.ask("meanwhile")[0] == 200
        with contextlib.suppress(ConnectionResetError):
            assert silent.recv(1000) == b"", "closed without an answer"


def test_a_body_that_stops_is_told(server: Server) -> None:
    with server.connect() as slow:
        slow.sendall(HEAD.format("/embed", 99).encode() + b"{")
        assert slow.recv(1000).startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize("bytes_", [b"\x00\xff\r\n\r\n", b"GET / HTTP/9\r\n\r\n", b"A" * 200_000])
def test_what_is_no_request_is_refused(server: Server, bytes_: bytes) -> None:
    with server.connect() as wild, contextlib.suppress(ConnectionError):
        wild.sendall(bytes_)
        assert wild.recv(1000)[:12] in (b"HTTP/1.1 400", b"")
    assert server.ask("meanwhile")[0] == 200


def test_a_client_that_reads_nothing_is_left(server: Server) -> None:
    body = json.dumps({"inputs": ["word " * 46] * 1000}).encode()
    with socket.socket() as greedy:
        greedy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        greedy.connect(server.address)
        head = HEAD.format("/embed_all", len(body))
        greedy.sendall(head.encode() + body)
        greedy.settimeout(20)
        assert greedy.recv(12) == b"HTTP/1.1 200"
        assert server.ask("meanwhile")[0] == 200
        time.sleep(1.5)
        with pytest.raises((ConnectionError, EOFError)):
            while True:
                if not greedy.recv(1 << 20):
                    raise EOFError("cut off")


def test_a_client_whose_body_is_too_large_reads_why(server: Server) -> None:
    status, told = server.ask("a" * 6_000_000)
    assert status == 413 and "expected a body of at most 2097152 bytes, received 60000" in told["error"]
    with server.connect() as endless, contextlib.suppress(ConnectionError):
        endless.sendall(HEAD.format("/embed", 10**9).encode())
        assert b" 413 " in endless.recv(1000)
        for _ in range(1000):
            endless.sendall(b"a" * 100_000)
        raise AssertionError("nobody reads that much")


def test_the_rest_of_a_body_does_not_keep_a_connection(server: Server) -> None:
    with server.connect() as slow:
        slow.sendall(HEAD.format("/embed", 6_000_000).encode())
        assert b" 413 " in slow.recv(1000)
        started = time.monotonic()
        with pytest.raises(OSError):
            while time.monotonic() - started < 10:
                slow.sendall(b"a")
                time.sleep(0.05)


def test_more_connections_than_there_may_be_are_told(server: Server) -> None:
    with contextlib.ExitStack() as many:
        opened = [many.enter_context(server.connect()) for _ in range(60)]
        late = opened[-1]
        assert late.recv(1000).startswith(b"HTTP/1.1 503 ")
    deadline = time.monotonic() + 10
    while True:
        with contextlib.suppress(ConnectionError, http.client.HTTPException):
            if server.ask("afterwards")[0] == 200:
                return
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_clients_that_reset_their_connection_leave_the_others_alone(server: Server) -> None:
    body = json.dumps({"inputs": ["word"] * 50}).encode()
    head = HEAD.format("/embed", len(body))
    for _ in range(20):
        with server.connect() as rude:
            rude.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            rude.sendall(head.encode() + body)
    assert server.ask("afterwards")[0] == 200


def test_a_signal_lets_what_was_accepted_end() -> None:
    server = Server(pause=0.3, settings="batch_tokens=16")
    found: list[object] = []

    def ask(number: int) -> None:
        found.append(server.ask([f"text {number}"] * 2)[0])

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    time.sleep(0.45)  # one batch ran, most wait
    server.process.send_signal(signal.SIGTERM)
    time.sleep(0.1)
    with pytest.raises(OSError):
        server.connect().close()
    for thread in threads:
        thread.join()
    assert found == [200] * 8
    errors = server.end()
    assert server.process.returncode == 0 and errors == "", errors


def test_it_ends_in_time_with_work_that_does_not() -> None:
    server, found = Server(pause=2.0, settings="shutdown_timeout=1"), []
    threading.Thread(target=lambda: found.append(server.ask("text"))).start()
    time.sleep(0.3)
    started = time.monotonic()
    errors = server.end()
    assert time.monotonic() - started < 8 and "Traceback" not in errors
    ((status, told),) = found
    assert status == 503 and "the server stops" in told["error"]


def test_short_requests_do_not_wait_for_long_ones() -> None:
    pause = 0.1
    server = Server(pause=pause, settings="batch_tokens=1024")
    long: list[float] = []

    def ask() -> None:
        started = time.monotonic()
        assert server.ask(["word " * 40] * 500)[0] == 200
        long.append(time.monotonic() - started)

    thread = threading.Thread(target=ask)
    thread.start()
    short = []
    while thread.is_alive():
        started = time.monotonic()
        assert server.ask("a short text")[0] == 200
        short.append(time.monotonic() - started)
    assert long[0] > 20 * pause and len(short) > 5
    # The batch that runs when it comes, and one more at most; the rest is for a machine that does other things too.
    assert max(short) < 6 * pause and sorted(short)[len(short) // 2] < 3 * pause, short
    assert server.end() == ""


def test_a_server_that_was_killed_under_load_starts_again_at_its_port() -> None:
    server = Server(pause=0.05, settings="batch_tokens=16")
    found: list[object] = []

    def ask(number: int) -> None:
        try:
            found.append(server.ask([f"text {number}"] * 200)[0])
        except (OSError, http.client.HTTPException):
            found.append("cut off")

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    time.sleep(0.3)
    assert server.end(signal.SIGKILL) == ""
    for thread in threads:
        thread.join()
    assert found == ["cut off"] * 8, "told by the connection, at once, and nobody waits"
    again = Server(port=server.address[1])
    status, vectors = again.ask(["one", "two"])
    expected = offline(embedder(), "sentence-embedding")(["one", "two"])
    assert status == 200 and vectors == [pytest.approx(row, abs=1e-6) for row in expected.tolist()]
    assert again.address == server.address and again.end() == ""


def test_a_port_that_is_taken_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(XLMRError, match=f"cannot listen at 127.0.0.1, port {port}: .*choose another"):
            serve([], port=port)


# The command


def test_the_command_names_models_and_their_tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a=b").mkdir()
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path)
    assert _named(["x=BAAI/bge-m3", "BAAI/bge-m3", "./mine", "a=b"]) == {
        "x": "BAAI/bge-m3",
        "BAAI/bge-m3": "BAAI/bge-m3",
        "mine": "./mine",
        "a=b": "a=b",
    }
    for words in (["x=a", "x=b"], ["=a"], ["a="]):
        with pytest.raises(UsageError, match="expected NAME=MODEL"):
            _named(words)
    assert _tasks(["rerank", "x=fill-mask"], ["x", "y"]) == {"x": "fill-mask", "y": "rerank"}
    with pytest.raises(UsageError, match="NAME=TASK of x, y"):
        _tasks(["z=rerank"], ["x", "y"])


def test_the_key_comes_from_a_file_or_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY, raising=False)
    assert _key(None) is None
    monkeypatch.setenv(KEY, "of the environment")
    assert _key(None) == "of the environment"
    file = tmp_path / "key"
    file.write_text("sesame\n", encoding="utf-8")
    assert _key(str(file)) == "sesame"
    for content in ("", "two words", "ä"):
        file.write_text(content, encoding="utf-8")
        with pytest.raises(UsageError, match="expected a key in"):
            _key(str(file))
    with pytest.raises(UsageError, match="cannot be read"):
        _key(str(tmp_path / "none"))


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "xlmr serve needs [NAME=]MODEL"),
        (["a", "--port", "70000"], "expected a port from 0 to 65535"),
        (["a", "--batch-tokens", "0"], "expected an integer of at least 1"),
        (["x=a", "x=b"], "two models of one name"),
        (["a", "--max-txts", "1"], "did you mean --max-texts"),
        ([str(ROOT / "nowhere")], "nowhere"),
    ],
)
def test_mistakes_of_the_command_are_told_in_a_line(words: list[str], told: str, capsys: pytest.CaptureFixture) -> None:
    assert main(["serve", *words]) == 2
    printed = capsys.readouterr().err
    assert told in printed and "Traceback" not in printed


def test_without_the_extra_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr("xlmr_core.cli.serve.PACKAGES", ("starlette", "no_such_package"))
    assert main(["serve", "a"]) == 2
    assert "no_such_package is needed to serve" in capsys.readouterr().err


def test_the_help_text_names_the_limits(capsys: pytest.CaptureFixture) -> None:
    assert main(["serve", "--help"]) == 0
    printed = capsys.readouterr().out
    assert "--max-waiting-tokens" in printed and os.fspath(KEY) in printed
