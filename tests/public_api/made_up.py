# ruff: noqa: E501 - tables
"""Changes of the core that nobody made: (file, text, text in its place, what is said of it)."""

BREAKS = [
    ("plugin.py", 'lacks: str = attrs.field(default="", kw_only=True)', 'wants: str = attrs.field(default="", kw_only=True)',
     'vllm_core.plugin.Refusal: has no parameter "lacks" any more; perhaps it is "wants" now'),
    ("plugin.py", "    TUNED = 2", "    FASTEST = 2", "vllm_core.plugin.Rank.TUNED: is gone; perhaps it is vllm_core.plugin.Rank.FASTEST now"),
    ("interfaces/proposer.py", "taps: Mapping[int, Tensor]) -> Drafts:", "taps: Mapping[int, Tensor], k: int) -> Drafts:",
     'Proposer.propose: parameter "k" is new, and plugins that implement it do not take it'),
    ("interfaces/tool_parser.py", "    def finish(self)", "    def reset(self) -> None: ...\n\n    def finish(self)",
     "ToolParser.reset: is new in a contract, and plugins that implement it lack it"),
    ("interfaces/rope.py", "cos: Tensor", "cosines: Tensor", 'RotaryTable: has no parameter "cos" any more; perhaps it is "cosines" now'),
    ("interfaces/queries.py", "    chat_template: str\n", "    chat_template: str\n    files: int\n",
     'ParserQuery: parameter "files" is new, and must be given'),
    ("hookspecs/parsers.py", "def tool_parser(query: ParserQuery, settings: Any)", "def tool_parser(query: ParserQuery)",
     'hook tool_parser: has no argument "settings" any more'),
    ("ops/norm.py", "def rms_norm(x: Tensor, weight: Tensor, eps: float)", "def rms_norm(x: Tensor, weight: Tensor, epsilon: float)",
     'vllm_core.ops.rms_norm: parameter "epsilon", by position or name, stands where "eps", by position or name, was'),
    ("interfaces/attention.py", "def write(self, k: Tensor, v: Tensor,", "def write(self, v: Tensor, k: Tensor,",
     'AttentionBackend.write: parameter "v", by position or name, stands where "k"'),
    ("weights/__init__.py", '    "rule",\n', "", "vllm_core.weights.rule: is gone"),
    ("layers/norm.py", "class RMSNorm(", "class RootMeanSquareNorm(", "vllm_core.layers.norm.RMSNorm: is gone"),
]  # fmt: skip
ADDS = [
    ("plugin.py", 'class Provides:', 'class Provides:\n    extra: int = attrs.field(default=0, kw_only=True)',
     'vllm_core.plugin.Provides: parameter "extra" is new'),
    ("layers/decoder_layer.py", "attention: Layer, mlp: Layer", "attention: Layer | None, mlp: Layer", 'parameter "attention" was Layer, is Layer | None'),
    ("layers/gated_mlp.py", "class GatedMLP(Layer):", "class GatedBase(Layer):\n    def forward(self, x: Tensor, residual: Tensor | None, batch: Batch) -> tuple[Tensor, Tensor]: ...\n\n\nclass GatedMLP(GatedBase):",
     "vllm_core.layers.gated_mlp.GatedBase: is new"),
    ("interfaces/plan.py", "    def fused(", "    def other(self) -> int: ...\n\n    def fused(", "vllm_core.interfaces.plan.Plan.other: is new"),
    ("interfaces/queries.py", "    chat_template: str\n", "    chat_template: str\n    files: int = 0\n", 'parameter "files" is new'),
    ("hookspecs/parsers.py", "def tool_parser(query: ParserQuery,", "def tool_parser(query: ParserQuery, speed: int,",
     'hook tool_parser: argument "speed" is new: plugins that do not declare it are asked without it'),
    ("hookspecs/parsers.py", "@hookspec\ndef tool_parser", '@hookspec(warn_on_impl=HookDeprecation("x", instead="y", goes="9"))\ndef tool_parser',
     "hook tool_parser: deprecated: warn_on_impl=HookDeprecation('x', instead='y', goes='9')"),
]  # fmt: skip
FREE = [
    ("interfaces/adapter.py", "class AdapterLayer(Protocol):", "class AdapterThing(Protocol):"),
    ("interfaces/queries.py", "    max_adapters: int  # in one batch\n", ""),
    ("interfaces/tool_parser.py", '"""The whole output of a request.', '"""All output of a request.'),
    ("plugin.py", "def _names(value", "def _all_names(value"),
]  # fmt: skip
