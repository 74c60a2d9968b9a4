"""A server of OpenAI's API that computes nothing and can be told to misbehave."""

import asyncio
import json
import threading
import time

import pytest


class FakeServer:
    """Streams ``"w "`` for each wanted token. ``mode`` says how it fails; ``gap`` is seconds between tokens."""

    def __init__(self):
        self.mode, self.gap, self.first_gap = "well", 0.0, 0.0
        self.asked, self.now, self.most = [], 0, 0
        self.fail_first = 0
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.ready = threading.Event()
        self.thread.start()
        self.ready.wait(10)

    def _run(self):
        asyncio.set_event_loop(self.loop)
        self.server = self.loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.port = self.server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.ready.set()
        self.loop.run_forever()

    def stop(self):
        async def end():
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()
            await asyncio.sleep(0)
            self.loop.stop()

        asyncio.run_coroutine_threadsafe(end(), self.loop)
        self.thread.join(5)

    async def _serve(self, reader, writer):
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                first, *lines = head.decode().split("\r\n")
                headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines if line)}
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                await self._answer(first.split()[1], json.loads(body) if body else None, headers, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    def _json(self, writer, value, status=200):
        body = json.dumps(value).encode()
        writer.write(b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body))

    async def _answer(self, path, body, headers, writer):
        if path == "/v1/models":
            self._json(writer, {"data": [{"id": "fake", "root": "/no/such/folder"}]})
        elif path == "/tokenize" and self.mode != "no tokenizer":
            self._json(writer, {"tokens": [ord(c) for c in body["prompt"]]})
        elif path == "/detokenize":
            self._json(writer, {"prompt": "".join(map(chr, body["tokens"]))})
        elif path in ("/v1/completions", "/v1/chat/completions"):
            self.asked.append((time.perf_counter(), body, headers))
            self.now += 1
            self.most = max(self.most, self.now)
            try:
                await self._stream(path, body, writer)
            finally:
                self.now -= 1
        else:
            self._json(writer, {"error": {"message": "nothing here"}}, 404)

    async def _stream(self, path, body, writer):
        if self.mode == "busy" or self.fail_first > 0:
            self.fail_first -= 1
            return self._json(writer, {"error": {"message": "too many", "type": "x"}}, 503)
        if self.mode == "half" and len(self.asked) % 2:
            return self._json(writer, {"error": {"message": "every other", "type": "x"}}, 500)
        chat = path.endswith("chat/completions")
        count = body["max_completion_tokens" if chat else "max_tokens"]
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")

        def event(data):
            text = data if isinstance(data, str) else json.dumps(data)
            piece = f"data: {text}\n\n".encode()
            writer.write(b"%x\r\n%s\r\n" % (len(piece), piece))

        await asyncio.sleep(self.first_gap)
        if chat:
            event({"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]})
        for i in range(count):
            if i:
                await asyncio.sleep(self.gap)
            if self.mode == "cut" and i == 2:
                writer.close()
                return None
            if self.mode == "error" and i == 2:
                event({"error": {"message": "the engine died"}})
                break
            reason = "length" if i == count - 1 else None
            text = {"delta": {"content": "w "}} if chat else {"text": "w "}
            event({"choices": [{"index": 0, "finish_reason": reason, **text}]})
            await writer.drain()
        if body.get("stream_options", {}).get("include_usage"):
            event({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": count}})
        event("[DONE]")
        writer.write(b"0\r\n\r\n")
        return None


@pytest.fixture
def fake():
    server = FakeServer()
    yield server
    server.stop()


@pytest.fixture
def bench(fake, capsys):
    """Run ``vllm-core bench serve`` against the fake server: (exit code, output)."""
    from vllm_core.cli import main

    def run(*words):
        code = main(["bench", "serve", "--base-url", fake.url, *map(str, words)])
        done = capsys.readouterr()
        return code, done.out + done.err

    return run
