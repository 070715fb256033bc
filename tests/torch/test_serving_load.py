"""A server with very many clients at once, which takes a while: ``nox -s everything``."""

from __future__ import annotations

import asyncio
import json
import resource
import time

import numpy as np
import pytest

pytest.importorskip("uvicorn", reason="the server needs the extra serve")

from tests.choice import EVERYTHING
from tests.core.served_models import embedder, offline
from tests.core.served_process import HEAD, Server

pytestmark = pytest.mark.skipif(not EVERYTHING, reason="some of it has small tests of its own; nox -s everything")
CONNECTIONS = 10_000
# Of a queue of connections that were not taken yet.
AT_ONCE = 500


def enough_descriptors() -> bool:
    wanted = CONNECTIONS + 1000
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most != resource.RLIM_INFINITY and most < wanted:
        return False
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))
    return True


@pytest.mark.slow
def test_ten_thousand_connections_are_answered_each_its_own() -> None:
    if not enough_descriptors():
        pytest.skip(f"a process may not open {CONNECTIONS} connections here")
    server = Server(settings="read_timeout=300, request_timeout=300, max_connections=11_000, max_requests=11_000")
    texts = [f"text {number}" for number in range(CONNECTIONS)]
    expected = offline(embedder(), "sentence-embedding")(texts)

    async def everybody() -> list[tuple[bytes, object]]:
        some = asyncio.Semaphore(AT_ONCE)

        async def connected() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
            async with some:
                return await asyncio.open_connection(*server.address)

        opened = await asyncio.gather(*(connected() for _ in texts))
        started = time.monotonic()
        assert (await asyncio.to_thread(server.ask, "meanwhile"))[0] == 200
        assert time.monotonic() - started < 5, "the others say nothing, and cost nothing"

        async def asked(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, text: str) -> tuple[bytes, object]:
            body = json.dumps({"inputs": text}).encode()
            writer.write(HEAD.format("/embed", len(body)).encode() + body)
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(int(line[15:]) for line in head.lower().splitlines() if line.startswith(b"content-length:"))
            return head[:12], json.loads(await reader.readexactly(length))

        found = await asyncio.gather(*(asked(*one, text) for one, text in zip(opened, texts, strict=True)))
        for _, writer in opened:
            writer.close()
        return found

    found = asyncio.run(everybody())
    assert {status for status, _ in found} == {b"HTTP/1.1 200"}
    np.testing.assert_allclose(np.array([vectors[0] for _, vectors in found]), expected, atol=1e-6)
    assert server.end() == ""
