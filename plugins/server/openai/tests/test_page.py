"""The page at / in a real browser: its own routes and figures, over an engine and a chat that tests can steer."""

import asyncio
import contextlib
import json
import shutil
import socket
import threading
import time
from pathlib import Path
from types import SimpleNamespace as Bag

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Mount, Route
from vllm_plugin_server.metrics import routes as figures
from vllm_plugin_server.page import routes as page_routes
from vllm_plugin_server.page.open import OPEN

from vllm_core.serving import EngineDeadError

EVIL = '<img src=x onerror="window.hacked=1"><script>window.hacked=1</script>&amp;'
PLUGINS = [("llama", "active", ""), ("ngram", "disabled", "disabled by block"), ("broken", "quarantined", EVIL)]


class Work:
    async def run(self, function, *arguments, size=0):
        return function(*arguments)


class StandIn:
    """A server whose answers a test chooses.

    reply   pieces of the next answers; ``pause`` seconds between them
    key     asked for, if there is one
    bodies  what the chat was asked, ``left`` how many clients left before the end
    """

    def __init__(self, prefix="", engines=1):
        self.reply, self.reasoning, self.pause, self.key, self.failure = ["Hello", " there"], [], 0.0, "", None
        self.bodies, self.left, self.running = [], 0, 3
        engine = Bag(
            settings=Bag(model="tiny" + EVIL, block_size=16, kv_cache_dtype="auto", enable_prefix_caching=True,
                         gpu_memory_utilization=None, kv_cache_memory=None),
            ready=Bag(longest=512, pages=8, page_tokens=[16]), timings={"plugins": 0.25, "weights": 1.5},
            stats=self.stats, pids={}, states=dict.fromkeys(range(engines), "ready"), on_stats=lambda callback: None,
        )  # fmt: skip
        self.context = Bag(
            engine=engine, models={"tiny": "base"}, settings=Bag(metrics_prefix="mine:"), work=Work(), observers=[],
            state={"routes": [Bag(endpoint=Bag(path="/metrics"))]}, on_startup=[], report=self.report,
            started=time.time(),
        )  # fmt: skip
        routes = [
            Route("/", page_routes.index(self.context)),
            Route("/metrics", self.guarded(figures.metrics(self.context))),
            Route("/page/about", self.guarded(page_routes.about(self.context))),
            Route("/page/{file}", page_routes.file(self.context)),
            Route("/v1/chat/completions", self.guarded(self.chat), methods=["POST"]),
        ]
        app = Starlette(routes=[Mount(prefix, routes=routes)] if prefix else routes)
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}{prefix}/"
        self.server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off"))
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [self.socket]}, daemon=True)
        self.thread.start()

    def close(self):
        self.server.should_exit = self.server.force_exit = True
        self.thread.join(10)

    def guarded(self, handler):
        async def checked(request):
            if self.key and request.headers.get("authorization") != f"Bearer {self.key}":
                return JSONResponse({"error": {"message": "no key"}}, 401)
            return await handler(request)

        return checked

    def report(self):
        chosen = {
            "name": "LlamaForCausalLM",
            "plugin": "llama",
            "distribution": "vllm-plugin-llama",
            "version": "1.2.3",
        }
        rows = [{"name": n, "version": "1.2.3", "state": s, "reason": r, "remedy": ""} for n, s, r in PLUGINS]
        return {"choices": [{"hook": "models", "chosen": chosen}], "plugins": rows}

    async def stats(self):
        state = self.context.engine.states[0]
        if state != "ready":
            raise EngineDeadError("it was killed")
        now = {"running": self.running, "waiting": 1, "cache_usage": 0.5, "prefix_queries": 10, "prefix_hits": 4}
        return Bag(engines=[Bag(engine=number, state=state, **now) for number in self.context.engine.states])

    async def chat(self, request):
        self.bodies.append(await request.json())
        if self.failure:
            return JSONResponse({"error": {"message": self.failure}}, 429)
        return StreamingResponse(self.stream(), media_type="text/event-stream")

    async def stream(self):
        def event(delta, **more):
            return "data: " + json.dumps({"choices": [{"delta": delta, **more}]}) + "\n\n"

        done = False
        try:
            for piece in self.reasoning:
                yield event({"reasoning": piece})
            for piece in self.reply:
                yield event({"content": piece})
                await asyncio.sleep(self.pause)
            yield event({}, finish_reason="stop")
            yield 'data: {"choices": [], "usage": {"completion_tokens": 2}}\n\ndata: [DONE]\n\n'
            done = True
        finally:
            self.left += not done


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        pytest.skip("needs a Chromium (on Debian: apt-get install chromium)")
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def server():
    server = StandIn()
    yield server
    server.close()


@pytest.fixture
def open_page(browser):
    """Opens a server's page; afterwards nothing on it may have gone wrong unnoticed."""
    contexts, complaints = [], []

    def open_page(server, quiet=True, **options):
        context = browser.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(10_000)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda m: complaints.append(m.text) if quiet and m.type == "error" else None)
        page.goto(server.url)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not complaints


def ask(page, text="Hi"):
    page.fill("#message", text)
    page.keyboard.press("Enter")


def settled(page, answers=1):
    page.locator(".after:not(:empty)").nth(answers - 1).wait_for()


def soon(condition, seconds=10):
    """The page's policy allows no evaluation in it, so the wait is here."""
    end = time.monotonic() + seconds
    while not (found := condition()) and time.monotonic() < end:
        time.sleep(0.05)
    return found


def test_it_shows_the_model_who_serves_it_and_every_plugins_state(server, open_page):
    page = open_page(server)
    page.get_by_text("Serving").wait_for()
    assert page.text_content("h1") == "tiny"
    assert "LlamaForCausalLM" in page.text_content("#choices")
    assert "vllm-plugin-llama 1.2.3" in page.text_content("#choices")
    assert "Building the engine: 1.8 s" in page.text_content("#startup")
    rows = page.locator("#plugins tbody tr")
    assert rows.count() == 3
    assert page.locator("#plugins .mark").all_text_contents() == ["quarantined", "used", "disabled"]


def test_the_charts_are_drawn_from_the_figures(server, open_page):
    page = open_page(server)
    queue = page.locator("[data-chart=queue]")
    queue.get_by_text("3", exact=True).wait_for()
    server.running = 7
    queue.get_by_text("7", exact=True).wait_for()
    assert page.text_content("[data-chart=cache] .value") == "50 %"
    assert "running 7, waiting 1" in queue.locator("svg").get_attribute("aria-label")
    assert queue.locator(".trace.first").get_attribute("d").count("L") >= 1
    assert page.text_content("[data-chart=throughput] .value") == "0"
    server.context.state["metrics"].engines.totals[0].counts["generation_tokens"] += 600
    assert soon(lambda: float(page.locator("[data-chart=throughput] .value").first.text_content()) > 50)


def test_several_engines_are_shown_as_one(open_page):
    server = StandIn(engines=2)
    try:
        page = open_page(server)
        page.locator("[data-chart=queue]").get_by_text("6", exact=True).wait_for()
        assert page.text_content("[data-chart=cache] .value") == "50 %"
    finally:
        server.close()


def test_without_the_route_of_figures_there_are_no_charts_and_the_chat_goes_on(server, open_page):
    server.context.state["routes"] = []
    page = open_page(server)
    page.get_by_text("No charts").wait_for()
    ask(page)
    settled(page)
    assert page.text_content("#state") == "Serving"
    assert not page.get_by_role("button", name="Pause").is_visible()


def test_pause_stops_asking(server, open_page):
    page = open_page(server)
    page.get_by_text("Serving").wait_for()
    page.get_by_role("button", name="Pause").click()
    page.wait_for_timeout(300)
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.wait_for_timeout(2500)
    assert not asked
    assert page.get_by_role("button", name="Pause").get_attribute("aria-pressed") == "true"
    with page.expect_request("**/metrics"):
        page.get_by_role("button", name="Pause").click()


def test_an_answer_comes_in_pieces_and_the_next_question_has_what_was_said(server, open_page):
    page = open_page(server)
    page.get_by_text("Serving").wait_for()
    page.get_by_text("Options").click()
    page.fill("#system", "Be brief.")
    page.fill("#temperature", "0.2")
    page.fill("#max-tokens", "9")
    ask(page)
    settled(page)
    assert page.locator(".from-model .text").text_content() == "Hello there"
    assert "2 tokens" in page.text_content(".from-model .after")
    assert page.text_content("#announce") == "Model: Hello there"
    ask(page, "And then?")
    settled(page, 2)
    first, second = server.bodies
    assert first == {
        "model": "tiny",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}],
        "temperature": 0.2, "max_tokens": 9, "stream": True, "stream_options": {"include_usage": True},
    }  # fmt: skip
    assert second["messages"][1:] == [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello there"},
        {"role": "user", "content": "And then?"},
    ]


def test_what_models_and_plugins_say_is_text_and_never_a_program(server, open_page):
    server.reply, server.reasoning = [EVIL[:7], EVIL[7:]], [EVIL]
    page = open_page(server)
    page.get_by_text("Serving").wait_for()
    ask(page, EVIL)
    settled(page)
    assert page.locator(".from-model > .text").text_content() == EVIL
    assert page.locator(".thinking").text_content() == EVIL
    assert page.locator(".from-you .text").text_content() == EVIL
    assert EVIL in page.text_content("#plugins")
    assert page.locator("main img, main script, main b").count() == 0
    assert page.evaluate("window.hacked") is None


def test_stop_ends_the_request_and_keeps_what_came(server, open_page):
    server.reply, server.pause = ["word "] * 200, 0.05
    page = open_page(server)
    page.get_by_text("Serving").wait_for()
    ask(page)
    page.get_by_role("button", name="Stop").click()
    settled(page)
    assert "stopped" in page.text_content(".from-model .after")
    assert page.evaluate("document.activeElement.id") == "message"
    assert soon(lambda: server.left) == 1


def test_everything_is_done_with_the_keyboard(server, open_page):
    server.reply, server.pause = ["word "] * 200, 0.05
    page = open_page(server)
    page.get_by_text("Serving").wait_for()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the chat"
    page.keyboard.press("Enter")
    page.keyboard.type("Hi")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("there")
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Stop").wait_for()
    page.keyboard.press("Escape")
    settled(page)
    assert server.bodies[0]["messages"][0]["content"] == "Hi\nthere"
    seen = set()
    for _ in range(20):
        page.keyboard.press("Tab")
        seen.add(page.evaluate("document.activeElement.id || document.activeElement.textContent.trim().slice(0, 7)"))
    assert {"clear", "message", "Options", "pause", "messages"} <= seen


def test_an_error_is_told_and_the_question_can_be_sent_again(server, open_page):
    server.failure = "the server is full " + EVIL
    page = open_page(server, quiet=False)
    page.get_by_text("Serving").wait_for()
    ask(page, "Hi")
    page.get_by_role("alert").filter(has_text="the server is full").wait_for()
    assert page.text_content("#problem") == server.failure
    assert page.input_value("#message") == "Hi"
    assert page.locator("#messages li").count() == 0
    server.failure = None
    page.keyboard.press("Enter")
    settled(page)
    assert len(server.bodies[1]["messages"]) == 1


def test_options_out_of_range_are_not_sent(server, open_page):
    page = open_page(server)
    page.get_by_text("Serving").wait_for()
    page.get_by_text("Options").click()
    page.fill("#temperature", "9")
    ask(page)
    page.wait_for_timeout(200)
    assert not server.bodies
    assert page.evaluate("document.activeElement.id") == "temperature"


def test_a_key_is_asked_for_and_stays_in_memory(server, open_page):
    server.key = "sk-right"
    page = open_page(server, quiet=False)
    page.get_by_label("API key").wait_for()
    assert page.evaluate("document.activeElement.id") == "key"
    page.keyboard.type("sk-wrong")
    page.keyboard.press("Enter")
    page.get_by_text("does not accept this key").wait_for()
    page.keyboard.type("sk-right")
    page.keyboard.press("Enter")
    page.get_by_text("Serving").wait_for()
    ask(page)
    settled(page)
    kept = "[{...localStorage}, {...sessionStorage}, document.cookie, location.href, document.body.outerHTML]"
    assert "sk-right" not in page.evaluate(f"JSON.stringify({kept})")
    assert page.input_value("#key") == ""
    page.reload()
    page.get_by_label("API key").wait_for()
    page.keyboard.press("Escape")
    page.get_by_role("button", name="API key").wait_for()  # the way back


def test_it_works_behind_a_prefix(open_page):
    server = StandIn("/llm/one")
    try:
        page = open_page(server)
        asked = []
        page.on("request", lambda request: asked.append(request.url))
        page.get_by_text("Serving").wait_for()
        ask(page)
        settled(page)
        page.reload()
        page.get_by_text("Serving").wait_for()
        assert len(asked) > 5
        assert all(url.startswith(server.url) for url in asked)
        # Without the slash at the end, where relative addresses would miss the prefix.
        page.goto(server.url.rstrip("/") + "/?x")
        page.get_by_text("Serving").wait_for()
    finally:
        server.close()


def test_it_asks_nobody_but_its_server(server, open_page):
    page = open_page(server, quiet=False)  # the policy's refusals at the end are written to the console
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    answer = page.reload()
    page.get_by_text("Serving").wait_for()
    ask(page)
    settled(page)
    assert asked
    assert all(url.startswith(server.url) for url in asked)
    policy = answer.headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "unsafe" not in policy
    blocked = page.evaluate("fetch('http://127.0.0.2:9/').then(() => 'reached', (error) => error.name)")
    assert blocked == "TypeError"
    page.evaluate("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"window.hacked=1\">')")
    page.wait_for_timeout(200)
    assert page.evaluate("window.hacked") is None  # the policy holds where an escape would be missing


def test_the_page_says_when_the_engine_has_ended_and_when_nobody_answers(server, open_page):
    page = open_page(server, quiet=False)
    page.get_by_text("Serving").wait_for()
    server.context.engine.states[0] = "restarting"
    page.get_by_text("The engine is being started again").wait_for()
    server.context.engine.states[0] = "dead"
    page.get_by_text("The engine has ended").wait_for()
    server.close()
    page.get_by_text("Not reachable").wait_for()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_has_the_contrast_of_aa(server, open_page, scheme):
    page = open_page(server, color_scheme=scheme, reduced_motion="reduce")
    page.get_by_text("Serving").wait_for()
    server.failure = None
    ask(page)
    settled(page)
    page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    page.evaluate("document.getElementById('problem').hidden = false; document.getElementById('problem').append('Bad')")
    found = page.evaluate(CONTRASTS)
    assert len(found) > 30
    assert not [row for row in found if row[0] < 4.5]
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == {
        "light": "rgb(245, 245, 242)", "dark": "rgb(18, 21, 23)",
    }[scheme]  # fmt: skip


# [ratio, text] of each element that has text of its own and can be seen.
CONTRASTS = """() => {
  const parts = (color) => color.match(/[\\d.]+/g).map(Number);
  const linear = (v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => [r, g, b].map((v) => linear(v / 255))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const color = parts(getComputedStyle(e).backgroundColor);
      if (color.length === 3 || color[3] === 1) return color;
    }
    return [255, 255, 255];
  };
  const own = (e) => [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
  return [...document.body.querySelectorAll('*')]
    .filter((e) => own(e) && e.checkVisibility() && !e.closest('.unseen, .skip'))
    .map((e) => {
      const [a, b] = [light(parts(getComputedStyle(e).color)), light(ground(e))].sort((x, y) => y - x);
      return [(a + 0.05) / (b + 0.05), e.textContent.trim().slice(0, 40)];
    });
}"""


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 390)])
@pytest.mark.parametrize("key", ["", "sk-right"])
def test_axe_finds_nothing_against_wcag(server, open_page, scheme, width, key):
    package = pytest.importorskip("axe_core_python", reason="needs axe-core-python")
    server.key, server.reasoning = key, ["thinking"]
    page = open_page(server, quiet=not key, color_scheme=scheme, viewport={"width": width, "height": 900})
    if key:
        page.get_by_label("API key").wait_for()
    else:
        page.get_by_text("Serving").wait_for()
        ask(page)
        settled(page)
        page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    page.evaluate((Path(package.__file__).parent / "axe.min.js").read_text())
    tags = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
    found = page.evaluate("(tags) => axe.run({runOnly: tags})", tags)
    assert len(found["passes"]) > 20
    assert [(v["id"], [node["html"] for node in v["nodes"]]) for v in found["violations"]] == []


def test_a_screen_reader_finds_names_for_everything(server, open_page):
    page = open_page(server)
    page.get_by_text("Serving").wait_for()
    parts = "button, input, textarea, svg[role=img], section"
    nameless = page.evaluate(
        """(parts) => [...document.querySelectorAll(parts)].filter((e) =>
      !(e.labels?.length || e.getAttribute('aria-label') || e.getAttribute('aria-labelledby') || e.textContent.trim()))
      .map((e) => e.outerHTML)""",
        parts,
    )
    assert not nameless
    headings = page.evaluate("[...document.querySelectorAll('h1, h2, h3')].map((h) => h.tagName)")
    assert headings.count("H1") == 1
    assert headings[0] == "H1"
    assert page.evaluate("document.documentElement.lang") == "en"
    assert page.locator("main").count() == page.locator("body > header").count() == 1
    assert page.locator("#announce").get_attribute("role") == "status"
    assert page.locator("th:not([scope])").count() == 0


def test_nothing_moves_for_those_who_want_that(server, open_page):
    server.reply, server.pause = ["word "] * 100, 0.05
    for motion, expected in (("reduce", 0), ("no-preference", 1)):
        page = open_page(server, reduced_motion=motion)
        page.get_by_text("Serving").wait_for()
        ask(page)
        page.get_by_text("word").first.wait_for()
        assert page.evaluate("document.getAnimations().length") == expected
        page.keyboard.press("Escape")


@pytest.mark.parametrize("width", [320, 390, 768, 1280])
def test_it_fits_every_width(server, open_page, width):
    server.reply = ["unbroken" * 60]
    page = open_page(server, viewport={"width": width, "height": 800})
    page.get_by_text("Serving").wait_for()
    ask(page, "long" * 100)
    settled(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_only_the_pages_own_files_need_no_key():
    assert "/" in OPEN
    assert "/page/page.js" in OPEN
    assert "/page/about" not in OPEN
    assert not [path for path in OPEN if path != "/" and not path.startswith("/page/")]


def test_the_page_makes_no_markup_of_text_and_names_no_host():
    for path in page_routes.FILES.iterdir():
        text = path.read_text().replace("http://www.w3.org/2000/svg", "")  # a name, not an address
        for mark in ("http:", "https:", "innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(",
                     "localStorage", "sessionStorage", "cookie ="):  # fmt: skip
            assert mark not in text, path.name


def test_files_are_asked_for_again_only_when_they_changed(server):
    import http.client

    def get(path, tag=None):
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.socket.getsockname()[1])) as connection:
            connection.request("GET", path, headers={"if-none-match": tag} if tag else {})
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()

    status, headers, body = get("/page/page.js")
    assert status == 200
    assert headers["content-type"].startswith("text/javascript")
    assert get("/page/page.js", headers["etag"])[0] == 304
    assert get("/page/page.js", '"other"')[2] == body
    for name in ("index.html", "..%2froutes.py", "%2e%2e/routes.py", "nothing.js"):
        assert get(f"/page/{name}")[0] in (404, 500)
