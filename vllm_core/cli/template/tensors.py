"""What the names and shapes of a checkpoint's tensors say about a decoder: its parts, and a first weight table.

Only what a name says plainly is taken; everything else is left uncovered, and named.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping

import attrs

__all__ = ["Structure", "read_structure"]

Shapes = Mapping[str, tuple[int, ...]]

_NUMBERED = re.compile(r"(.+?)\.(\d+)\.(.+)")
_ENDS = re.compile(r"(.+)\.(weight|bias)")
_ATTENTION = r"(?P<part>(?:self_attn|self_attention|attention|attn)\.)"
_MLP = r"(?P<part>(?:mlp|feed_forward|ffn)\.)"

OUTSIDE = (
    (r"(?:.+\.)?(?:embed_tokens|wte|embed_in|word_embeddings|tok_embeddings)", "embedding"),
    (r"(?:.+\.)?(?:norm|ln_f|final_layernorm|final_layer_norm|final_norm)", "norm"),
    (r"lm_head|embed_out|output", "head"),
)
"""Modules beside the layers -> where they go."""

INSIDE = (
    (_ATTENTION + r"[qkv]_proj", "{part}{x:q|k|v}_proj", "attention.qkv", "{x}"),
    (_ATTENTION + r"qkv_proj", "{part}qkv_proj", "attention.qkv", ("q", "k", "v")),
    (_ATTENTION + r"(?P<last>o_proj|out_proj|dense|wo)", "{part}{last}", "attention.out", ""),
    (_ATTENTION + r"[qk]_(?P<last>norm|layernorm)", "{part}{x:q|k}_{last}", "attention.{x}_norm", ""),
    (_MLP + r"(?:gate|up)_proj", "{part}{x:gate|up}_proj", "mlp.gate_up", "{x}"),
    (_MLP + r"gate_up_proj", "{part}gate_up_proj", "mlp.gate_up", ("gate", "up")),
    (_MLP + r"(?P<last>fc1|c_fc|fc_in|dense_h_to_4h)", "{part}{last}", "mlp.up", ""),
    (_MLP + r"(?P<last>down_proj|fc2|c_proj|fc_out|dense_4h_to_h)", "{part}{last}", "mlp.down", ""),
)
"""Modules in a layer: what matches, the checkpoint's name, our layer's, and its slot, or a fused tensor's slots."""

ROOM = 105  # characters of a rule's arguments on one line, as the formatter has it

FIRST = ("input_layernorm", "ln_1", "attention_norm", "norm1", "pre_attention_layernorm", "attention_layernorm")
SECOND = ("post_attention_layernorm", "ln_2", "ffn_norm", "norm2", "pre_mlp_layernorm", "mlp_norm",
          "feedforward_layernorm")  # fmt: skip


@attrs.frozen(kw_only=True)
class Structure:
    """``rules`` are lines of a weight table. ``uncovered`` are tensors of one layer, or beside them, without a rule."""

    rules: list[str]
    uncovered: list[str]
    norms: dict[str, str]  # our layer's norm -> the checkpoint's: "attention.norm", "attention.post_norm", ...
    gated: bool
    biases: frozenset[str]  # of "attention.qkv", "attention.out", "mlp", "head", "norms"
    qk_norm: tuple[int, ...] | None  # shape of the weight of a norm of queries
    has_head: bool

    @property
    def parallel(self) -> bool:
        """One norm in a layer, before both halves."""
        return "norm" in self.norms

    @property
    def post_only(self) -> bool:
        """Halves norm what they give and not what they take."""
        return "attention.norm" not in self.norms and "attention.post_norm" in self.norms


def read_structure(shapes: Shapes) -> Structure:
    modules: dict[str, set[str]] = {}  # without "weight" and "bias" -> which of them there are
    uncovered: list[str] = []
    for name in shapes:
        found = _ENDS.fullmatch(name)
        if found:
            modules.setdefault(found[1], set()).add(found[2])
        else:
            uncovered.append(name)
    layers = Counter(found[1] for name in modules if (found := _NUMBERED.fullmatch(name)))
    prefix = layers.most_common(1)[0][0] if layers else ""
    inside: dict[str, set[str]] = {}
    outside: dict[str, set[str]] = {}
    for name, ends in modules.items():
        found = _NUMBERED.fullmatch(name)
        place = (inside, found[3]) if found and found[1] == prefix else (outside, name)
        place[0].setdefault(place[1], set()).update(ends)
    norms = _norms(inside)
    gated = any(name.endswith(("gate_proj", "gate_up_proj")) for name in inside)
    read = _Reading(prefix, norms, gated)
    head_and_tail = {target: line for name in outside for target, line in read.outside(name)}
    body = list(dict.fromkeys(line for name in sorted(inside, key=_order) for line in read.inside(name)))
    uncovered += [f"{prefix}.{{i}}.{name}" for name in sorted(inside) if not list(read.inside(name))]
    uncovered += [name for name in sorted(outside) if not list(read.outside(name))]
    tail = [head_and_tail[target] for target in ("norm", "head") if target in head_and_tail]
    uncovered = [_NUMBERED.sub(r"\1.{i}.\3", name) if name.startswith(f"{prefix}.") else name for name in uncovered]
    return Structure(
        rules=[*([head_and_tail["embedding"]] if "embedding" in head_and_tail else []), *body, *tail],
        uncovered=sorted(set(uncovered)),
        norms=norms,
        gated=gated,
        biases=frozenset(_biases(inside, outside, norms)),
        qk_norm=next((shape for name, shape in shapes.items() if re.search(r"\.q_(layer)?norm\.weight$", name)), None),
        has_head="head" in head_and_tail,
    )


@attrs.frozen
class _Reading:
    prefix: str
    norms: dict[str, str]
    gated: bool

    def outside(self, name: str) -> Iterator[tuple[str, str]]:
        for pattern, target in OUTSIDE:
            if re.fullmatch(pattern, name):
                yield target, f'rule("{name}.{{w}}", "{target}.{{w}}"),'

    def inside(self, name: str) -> Iterator[str]:
        for ours, theirs in self.norms.items():
            if theirs == name:
                yield self._line(name, ours, "")
        for pattern, source, target, slot in INSIDE:
            found = re.fullmatch(pattern, name)
            if not found:
                continue
            if target == "mlp.gate_up" and not self.gated:  # "up_proj" alone
                yield self._line(name, "mlp.up", "")
                continue
            for group, text in found.groupdict().items():
                source = source.replace(f"{{{group}}}", text)
            yield self._line(source, target, slot)

    def _line(self, source: str, target: str, slot: str | tuple[str, ...]) -> str:
        end = f', slot="{slot}"' if slot else ""
        if isinstance(slot, tuple):
            end = ", transform=Split(({}))".format(", ".join(f'"{one}"' for one in slot))
        inside = f'"{self.prefix}.{{i}}.{source}.{{w}}", "layers.{{i}}.{target}.{{w}}"{end}'
        return f"rule({inside})," if len(inside) <= ROOM else f"rule(\n            {inside}\n        ),"


def _norms(inside: Iterable[str]) -> dict[str, str]:
    """Our norms of a layer -> the checkpoint's, by which of the usual names there are."""
    names = {name for name in inside if "." not in name}
    first = next((name for name in FIRST if name in names), "")
    second = next((name for name in SECOND if name in names), "")
    if "pre_feedforward_layernorm" in names:
        found = (first, "post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm")
    elif "post_self_attn_layernorm" in names:
        found = (first, "post_self_attn_layernorm", second, "post_mlp_layernorm")
    elif "post_feedforward_layernorm" in names and not first:
        found = ("", "post_attention_layernorm", "", "post_feedforward_layernorm")
    elif first and not second:
        return {"norm": first}
    else:
        found = (first, "", second, "")
    ours = ("attention.norm", "attention.post_norm", "mlp.norm", "mlp.post_norm")
    return {place: name for place, name in zip(ours, found, strict=True) if name in names}


def _biases(inside: Mapping[str, set[str]], outside: Mapping[str, set[str]], norms: Mapping[str, str]) -> Iterator[str]:
    def any_bias(modules: Mapping[str, set[str]], chosen: Callable[[str], bool]) -> bool:
        return any("bias" in ends and chosen(name) for name, ends in modules.items())

    if any_bias(inside, lambda name: bool(re.search(r"\.(qkv|[qkv])_proj$", name))):
        yield "attention.qkv"
    if any_bias(inside, lambda name: bool(re.fullmatch(INSIDE[2][0], name))):
        yield "attention.out"
    if any_bias(inside, lambda name: bool(re.fullmatch(_MLP + ".+", name))):
        yield "mlp"
    if any_bias(inside, lambda name: name in norms.values()):
        yield "norms"
    if any_bias(outside, lambda name: bool(re.fullmatch(OUTSIDE[2][0], name))):
        yield "head"


def _order(name: str) -> tuple[int, str]:
    """The order of a layer's parts in its weight table: norm, attention, norm, feed-forward."""
    if name in FIRST:
        return 0, name
    if re.match(_ATTENTION, name):
        return 1, {"q": "0", "k": "0", "v": "0", "o": "1"}.get(name.rpartition(".")[2][0], "2") + name
    return (3, name) if re.match(_MLP, name) else (2, name)
