"""``vllm-core run-batch``"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import attrs

from vllm_core.commands import UsageError, add_engine_flags, add_flags, check_plugins, engine_settings, own_settings
from vllm_plugin_server.settings import ServerSettings

__all__ = ["RunBatch"]

# Of the server's settings, those that say how requests are answered; the others say how they come.
ANSWERING = (
    "served_model_name", "response_role", "lenient_requests", "trust_request_chat_template",
    "enable_prompt_tokens_details", "max_concurrent_requests", "request_timeout", "log_level",
)  # fmt: skip
WEB = ("http://", "https://")


class RunBatch:
    about = (
        "Answers a file of requests in OpenAI's batch format, one JSON object a line: custom_id, method (POST), url "
        "(such as /v1/chat/completions) and body. A line that is wrong, or a request that fails, becomes a line that "
        "says why; the others go on. Answers stand in the order of the requests, and OUT is there when it is whole: "
        "until then it is OUT.partial, which --resume goes on with."
    )
    examples = (
        ("run-batch -i in.jsonl -o out.jsonl --model SmolLM2-135M-Instruct", ""),
        ("run-batch -i in.jsonl -o out.jsonl --model ./my-model --resume", "after an interruption"),
    )

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("-i", "--input-file", required=True, metavar="IN", help="the requests, a file here")
        parser.add_argument(
            "-o", "--output-file", required=True, metavar="OUT", help="where the answers go, a file here"
        )
        parser.add_argument("--model", dest="model_flag", metavar="MODEL", help="the model, as a flag")
        parser.add_argument("--resume", action="store_true", help="go on with OUT.partial of a run before")
        add_flags(
            parser, ServerSettings, skip=[n.name for n in attrs.fields(ServerSettings) if n.name not in ANSWERING]
        )
        add_engine_flags(parser, optional=True)

    def run(self, args: argparse.Namespace) -> int:
        for name, path in (("-i", args.input_file), ("-o", args.output_file)):
            if path.startswith(WEB):
                raise UsageError(
                    f"{name} {path}: addresses are not fetched, as a file of requests may come from anybody.\n"
                    "  instead curl it here before, or send it there afterwards"
                )
        if args.model is not None and args.model_flag is not None:
            raise UsageError("the model was given twice: as MODEL and as --model")
        args.model, args.model_flag = args.model or args.model_flag, None
        open(args.input_file, "rb").close()  # before a model is loaded
        loaded = engine_settings(args)
        settings, engine = own_settings("server", ServerSettings, loaded, args)
        if not engine.model:
            raise UsageError("no model was named.\n  instead vllm-core run-batch ... --model MODEL")
        if engine.skip_tokenizer_init:
            raise UsageError("requests of text need a tokenizer: leave --skip-tokenizer-init out")
        # Nobody knocks: the requests are the user's own.
        inside = attrs.evolve(settings, api_key=[], allowed_origins=[], root_path="")
        return _run(args, engine, inside, check_plugins(loaded))


def _run(args: argparse.Namespace, engine_settings: Any, settings: ServerSettings, catalog: Any) -> int:
    from vllm_core.serving import AsyncLLM
    from vllm_plugin_server.app import make_app
    from vllm_plugin_server.batch.asgi import call
    from vllm_plugin_server.batch.lines import read_lines
    from vllm_plugin_server.batch.run import EngineEnded, run
    from vllm_plugin_server.batch.writer import OrderedWriter
    from vllm_plugin_server.logs.setup import configure
    from vllm_plugin_server.routes import choose
    from vllm_plugin_server.serve import make_context

    writer = OrderedWriter(args.output_file, resume=args.resume)  # before a model is loaded, too
    handler = configure(settings.log_level, settings.log_format, [])
    engine = AsyncLLM.from_settings(engine_settings)
    try:
        context = make_context(engine, settings, catalog)
        app = make_app(context, choose(catalog.entries("http_endpoints"), catalog.prefer("http_endpoints")))

        async def answer() -> Any:
            try:
                with writer:
                    return await run(
                        read_lines(args.input_file), partial(call, app.app), writer,
                        at_once=settings.max_concurrent_requests, done=_progress(),
                    )  # fmt: skip
            finally:
                for end in context.on_shutdown:
                    await end()

        try:
            report = asyncio.run(answer())
        except (EngineEnded, KeyboardInterrupt) as error:
            why = f"the engine has ended: {error}" if isinstance(error, EngineEnded) else "interrupted"
            print(f"{why}\n  {writer.written} answers are in {writer.partial}; --resume goes on", file=sys.stderr)
            return 1
    finally:
        engine.shutdown()
        handler.flush()
    before = f", {report.resumed} of a run before" if report.resumed else ""
    print(f"{report.answered} requests answered{before}, {report.failed} of them with an error: {writer.path}")
    return 1 if report.answered and report.failed == report.answered else 0


def _progress() -> Callable[[], None]:
    if not sys.stderr.isatty():
        return lambda: None
    count = 0

    def done() -> None:
        nonlocal count
        count += 1
        print(f"\r{count} requests", end="", file=sys.stderr, flush=True)

    return done
