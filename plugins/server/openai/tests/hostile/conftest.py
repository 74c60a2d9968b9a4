"""A server that answers as a test wants, to see that the gates find what is wrong with it."""

import asyncio
import json
import threading

import pytest

GOOD = "one two"


class Victim:
    """``answer(method, path, body)`` gives (status, JSON or bytes, headers), or None to hang up."""

    def __init__(self, answer):
        self.answer = answer
        self.loop = asyncio.new_event_loop()
        self.started = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()
        self.started.wait(10)
        self.url = f"http://127.0.0.1:{self.port}"

    def _run(self):
        asyncio.set_event_loop(self.loop)
        server = self.loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", 0, limit=1 << 24))
        self.port = server.sockets[0].getsockname()[1]
        self.started.set()
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
            head = await reader.readuntil(b"\r\n\r\n")
            first, *lines = head.decode("latin-1").split("\r\n")
            headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines if line)}
            body = await reader.readexactly(int(headers.get("content-length") or 0))
            method, path, _ = first.split(" ", 2)
            found = self.answer(method, path.split("?")[0], body)
            if asyncio.iscoroutine(found):
                found = await found
            if found is not None:
                status, value, more = (*found, {})[:3]
                sent = value if isinstance(value, bytes) else json.dumps(value).encode()
                extra = "".join(f"{k}: {v}\r\n" for k, v in more.items())
                writer.write(f"HTTP/1.1 {status} X\r\nContent-Length: {len(sent)}\r\n{extra}\r\n".encode() + sent)
                await writer.drain()
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError, ConnectionError):
            pass
        finally:
            writer.close()


def error(message="no", **more):
    """OpenAI's shape and Anthropic's in one."""
    inner = {"message": message, "type": "invalid_request_error", "param": None, "code": None, **more}
    return {"type": "error", "error": inner}


def well(method, path, body):
    """What a server without a fault answers to good and bad requests of /v1/completions."""
    if path == "/health":
        return 200, b""
    if path == "/v1/models":
        return 200, {"data": [{"id": "m"}]}
    if path == "/metrics":
        return 200, b"vllm:num_requests_running 0\nvllm:num_requests_waiting 0\nvllm:kv_cache_usage_perc 0.0\n"
    if path != "/v1/completions":
        return 404, error()
    if method != "POST":
        return 405, error()
    try:
        value = json.loads(body)
        good = value["temperature"] == 0 or value["prompt"] == "Hello"
    except (ValueError, TypeError, KeyError):
        good = False
    return (200, {"choices": [{"text": GOOD}]}) if good else (400, error())


@pytest.fixture
def victim():
    """``victim(answer)`` starts one; what ``answer`` gives as None is answered as by a good server."""
    made = []

    def start(answer=lambda method, path, body: ...):
        def both(method, path, body):
            found = answer(method, path, body)
            return well(method, path, body) if found is ... else found

        made.append(Victim(both))
        return made[-1]

    yield start
    for one in made:
        one.stop()


@pytest.fixture
def shape():
    """The body of a good error."""
    return error
