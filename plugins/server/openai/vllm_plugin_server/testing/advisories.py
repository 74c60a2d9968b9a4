"""Published advisories of serving engines, and what shows that this one does not share them (R20). Long: a table.

Evidence: ``set`` the request set replays it; ``test FILE::NAME`` a test; ``static`` R16's check of the source;
``absent`` no such feature here.
"""

from __future__ import annotations

from collections import Counter

import attrs

__all__ = ["ADVISORIES", "Advisory", "counts", "table"]


@attrs.frozen
class Advisory:
    id: str
    what: str
    evidence: str


REVISION = "tests/loading/test_checkpoints.py::test_a_revision_is_the_models_and_its_own_tokenizers"
ONE_ID = "tests/async_engine/test_async_llm.py::test_two_requests_may_not_have_one_id"
ROWS = "tests/runner/test_rows.py::test_a_taken_row_holds_what_the_plan_says_and_other_rows_are_untouched"
LARGE_TENSOR = "plugins/weights/gguf/tests/test_gguf_large.py"
GGUF_COUNTS = "plugins/weights/gguf/tests/test_gguf_file.py::test_counts_beyond_the_file_are_refused"
LARGE_BATCH = "plugins/kernels/cpu-native/tests/test_large_batches.py"
NAMES = "tests/cache/test_prefix_names.py"
HERE = "test plugins/server/openai/tests/hostile/test_advisories.py"
PICKLED = "tests/loading/test_refusals.py::test_pickled_weights_are_refused_with_the_reason_and_the_way_out"
MEDIA = "absent: no images, sound or video yet; parts that ask for them are refused (set)"
PEERS = "absent: no connectors between engines; kv_transfer_params change nothing (set)"
MAMBA = "absent: no recurrent layers on this server's models yet"

_TABLE = f"""
CVE-2024-8768|empty prompt|set
CVE-2024-8939|huge best_of|set
CVE-2024-9052|pickle between processes|static
CVE-2024-9053|pickle on the RPC socket|static
CVE-2024-11041|pickle in a message queue|static
CVE-2025-24357|torch.load of a model's files|test {PICKLED}
CVE-2025-25183|prompts that collide in the prefix cache|test {NAMES}::test_a_name_is_a_whole_sha256_digest
CVE-2025-29770|schemas fill the disk|set
CVE-2025-29783|pickle over ZeroMQ|static
CVE-2025-30165|pickle from another host|static
CVE-2025-30202|a socket on all interfaces|{HERE}::test_a_server_listens_where_it_was_told_and_nowhere_else
CVE-2025-32444|pickle on all interfaces|static
CVE-2025-46560|many placeholders, quadratic|set
CVE-2025-46570|timing of a shared prefix cache|test {NAMES}::test_another_salt_makes_other_names
CVE-2025-46722|images alike but in shape|{MEDIA}
CVE-2025-47277|pickle and a store on all interfaces|static
CVE-2025-48887|a tool parser's exponential regex|{HERE}::test_parsers_read_hostile_text_in_linear_time
CVE-2025-48942|invalid JSON schema|set
CVE-2025-48943|invalid regex|set
CVE-2025-48944|invalid tool schema|set
CVE-2025-71379|backtracking regexes on tools' text|{HERE}::test_parsers_read_hostile_text_in_linear_time
CVE-2025-48956|a huge header|set
CVE-2025-9141|eval of a tool's argument|set
CVE-2025-59425|keys compared byte by byte|set
CVE-2025-61620|a chat template in the request|set
CVE-2025-6242|image_url to inside hosts|set
CVE-2025-62164|sparse tensors as prompt embeddings|set
CVE-2025-62372|image embeddings of a wrong shape|set
CVE-2025-62426|template arguments that override others|set
CVE-2025-66448|auto_map in config.json|static
CVE-2026-22773|a 1x1 image|set
CVE-2026-56340|sparse tensors, again|set
CVE-2026-22807|auto_map before the check of trust|static
CVE-2026-22778|errors that leak addresses, a video|set
CVE-2026-24779|a backslash in a media URL|set
CVE-2026-25960|two URL parsers that disagree|set
CVE-2026-27893|trust_remote_code=True in two files|static
CVE-2026-34760|stereo sound mixed wrongly|{MEDIA}
CVE-2026-34753|file_url in a batch|set
CVE-2026-34755|a video of thousands of frames|set
CVE-2026-34756|n astronomically large|set
CVE-2026-7141|uninitialised state blocks|{MAMBA}
CVE-2026-9540|resources not released|{HERE}::test_clients_that_vanish_leave_nothing_behind
CVE-2026-44222|media placeholders as plain text|set
CVE-2026-44223|penalties beside drafts|set
CVE-2026-41523|assert as a guard under python -O|{HERE}::test_no_assert_guards_what_a_client_sends
CVE-2026-47155|--revision not honoured|test {REVISION}
CVE-2026-48746|Host rewrites the path that auth sees|set
CVE-2026-54232|an image build takes an unregistered name|absent: no image is built here
GHSA-v97p-wpxp-px84|stale tokens in a batch slot|test {ROWS}
CVE-2026-53923|GGUF tensors above 2^31 elements|test {LARGE_TENSOR}
CVE-2026-54233|25 MB of sound, 15 GB decoded|set
CVE-2026-54234|overlapping generate and abort over gRPC|absent: no gRPC
CVE-2026-54235|temperature NaN and Infinity|set
CVE-2026-54236|a junk image's error text on /v1/messages|set
CVE-2026-55514|prompt_embeds with M-RoPE|absent: no prompt_embeds; refused (set, CVE-2025-62164)
CVE-2026-55574|compiling a regex without a time limit|set
CVE-2026-55646|an upload read before its limit|set
CVE-2026-12491|images not normalised|{MEDIA}
CVE-2026-116173|more log-probabilities than allowed|set
CVE-2026-116176|an address in X-Request-Id|set
CVE-2026-71486|unbounded token ids on the way back|set
CVE-2026-73555|file paths in errors of malformed JSON|set
CVE-2026-73556|a regex in another backend|set
CVE-2026-73557|two prompt_embeds at once|set
CVE-2026-73559|a list of 100,000 prompts|set
CVE-2026-73560|a processor that fetches by itself|set
CVE-2026-73558|int32 overflow in a large batch|test {LARGE_BATCH}
CVE-2026-78684|a video backend without its pixel limit|{MEDIA}
CVE-2026-90553|a processor that ignores the trust flag|static
CVE-2026-93592|a negative token id|set
GHSA-fpch-3xrf-7q96|thinking_token_budget after a reordering|set
CVE-2026-93840|allowed_token_ids past the logits|set
CVE-2026-100650|media read whole before limits|{MEDIA}
GHSA-wpww-v874-ph2p|unbounded cache_salt|set
CVE-2026-93436|max_tokens=0|set
CVE-2026-93841|a token id that is the vocabulary's size|set
CVE-2026-93989|a bad word past the logits|set
CVE-2026-94622|incomplete kv_transfer_params|set
CVE-2026-94623|several prompts beside a connector|set
CVE-2026-94624|any peer's host and port|{PEERS}
CVE-2026-94625|blocks of a rejected prefill|{PEERS}
CVE-2026-94626|tp_size in kv_transfer_params|set
CVE-2026-94627|a transfer id shared by prompts|{PEERS}
CVE-2026-105754|forged media features|absent: no /inference/v1/generate
PYSEC-2026-4353|overlapping placeholders|{MEDIA}
CVE-2026-105755|one X-Request-Id for two requests|set
CVE-2026-105756|cache_salt of odd characters|set
CVE-2026-105757|structured outputs that fail in the engine loop|set
CVE-2026-105758|max_frames of the client|set
CVE-2026-105760|media_io_kwargs|set
CVE-2026-105775|penalties, thin detail|set
CVE-2026-114049|a stale mask of allowed tokens|test {ROWS}
CVE-2026-114051|huge min_tokens, no max_tokens|set
CVE-2026-116180|prompt log-probabilities of a cached prefix|set
CVE-2026-126396|min_pixels of the client|set
CVE-2026-115911|a template that never ends|set
CVE-2026-115912|a forged handle of shared memory|static
CVE-2026-115918|chat_template in chat_template_kwargs|set
CVE-2026-130686|many image URLs in /v1/messages|set
GHSA-h3rc-6mm3-gc2m|/tokenize without the key|set
vllm#49239|an error 5,000 times as long as its cause|set
CVE-2025-10164|SGLang: weights from pickled tensors|set
CVE-2026-5760|SGLang: a template outside of a sandbox|set
CVE-2026-7302|SGLang: ../ in a name|set
CVE-2026-7304|SGLang: dill in a request|set
CVE-2026-7669|SGLang: /get_tokenizer|set
CVE-2026-112266|SGLang: a short id aborts others|test {ONE_ID}
CVE-2026-3059|SGLang: pickle from a broker|static
CVE-2026-3989|SGLang: pickle in a script that replays requests|static
CVE-2026-7301|SGLang: pickle on a socket on all interfaces|static
CVE-2026-15969|SGLang: adapters of pickled tensors|static
CVE-2026-15971|SGLang: eval of a debugger's filter|static
CVE-2026-15976|SGLang: torch.load of new weights|static
CVE-2026-0599|TGI: markdown images are fetched|set
CVE-2024-23605|llama.cpp: counts of a GGUF header overflow|test {GGUF_COUNTS}
CVE-2024-34359|llama-cpp-python: a template outside of a sandbox|set
CVE-2026-33626|LMDeploy: an image URL to inside hosts|set
CVE-2025-66455|LMDeploy: pickle from a peer|static
CVE-2025-67729|LMDeploy: torch.load of a model's files|test {PICKLED}
CVE-2024-2952|LiteLLM: a template outside of a sandbox|set
CVE-2026-49468|LiteLLM: the route rebuilt from Host|set
CVE-2026-42271|LiteLLM: tools on another host|set
CVE-2024-4264|LiteLLM: eval of a configuration|static
CVE-2024-8984|LiteLLM: a boundary of dashes|absent: no multipart forms; refused (set)
CVE-2025-23254|TensorRT-LLM: pickle between processes|static
CVE-2026-24208|Triton: path traversal|set
CVE-2026-47627|Triton: path traversal|set
CVE-2025-62727|Starlette: many ranges|set
CVE-2024-24762|python-multipart: a long Content-Type|set
CVE-2026-53537|python-multipart: a long query|set
CVE-2025-43859|h11: chunks' line ends|set
CVE-2025-67221|orjson: recursion|set
CVE-2024-3772|pydantic: a regex for e-mail|set
CVE-2025-32381|xgrammar: an unbounded cache|test plugins/grammar/xgrammar/tests
CVE-2025-57809|xgrammar: infinite recursion|set
CVE-2025-58446|xgrammar: a huge enum|set
CVE-2026-25048|xgrammar: deep nesting|set
CVE-2025-69872|diskcache: pickle in its folder|set
"""

ADVISORIES = tuple(Advisory(*line.split("|", 2)) for line in _TABLE.strip().splitlines())


def counts() -> dict[str, int]:
    """How many advisories have which evidence."""
    return dict(Counter(advisory.evidence.split()[0].rstrip(":") for advisory in ADVISORIES))


def table() -> str:
    """docs/advisories.md of this package."""
    told = counts()
    shown = {"set": "the request set", "static": "no such call in the source (R16)"}
    rows = [f"| {a.id} | {a.what} | {shown.get(a.evidence, a.evidence.removeprefix('test '))} |" for a in ADVISORIES]
    return (
        "# Advisories of serving engines, and what shows that this one does not share them\n\n"
        "Made by `python -m vllm_plugin_server.testing advisories`; a test compares it with the tests that it names.\n"
        "Those without another name in front are vLLM's.\n\n"
        f"{len(ADVISORIES)} advisories: {told['set']} by the request set, {told['test']} by a test of their own, "
        f"{told['static']} by what the source does not have,\n{told['absent']} of features that are not here, "
        f"{told.get('open', 0)} open.\n\n"
        "| advisory | what | evidence |\n|---|---|---|\n" + "\n".join(rows) + "\n"
    )
