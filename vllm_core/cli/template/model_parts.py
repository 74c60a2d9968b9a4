"""A new model's layers, as lines of Python: what the structure of a checkpoint and its fields say about them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vllm_core.cli.template.model_fields import Fields
    from vllm_core.cli.template.reference import Reference
    from vllm_core.cli.template.tensors import Structure

__all__ = ["Parts"]

LINE = 120  # characters


class Parts:
    """The layers, as Python's text."""

    def __init__(self, made: Fields, structure: Structure, reference: Reference | None) -> None:
        self.made, self.structure, self.reference = made, structure, reference
        self.notes: list[str] = []
        self.dropped: list[str] = []
        self.head_dim = "c.head_dim" if made.has("head_dim") else "head_dim"
        rms = "RMS" in reference.norm if reference and reference.norm else "norms" not in structure.biases
        self.norm = "RMSNorm" if rms and not made.eps.startswith("layer_norm") else "LayerNorm"
        usual = ("RMSNorm", "LayerNorm")
        if reference and reference.norm and not reference.norm.endswith(usual):
            self.notes.append(f"transformers norms with {reference.norm}: compare its arithmetic with {self.norm}'s")
        head_dim = (reference.tiny if reference and structure is reference.structure else made.full).get("head_dim")
        shape = structure.qk_norm
        self.per_head_norm = shape is not None and len(shape) == 1 and shape[0] in (head_dim, self._share(reference))
        self.rules = structure.rules
        if shape is not None and not self.per_head_norm:
            self.rules = [line for line in structure.rules if "attention.{x}_norm" not in line]
            self.dropped = [line.split('"')[1] for line in structure.rules if line not in self.rules]
            self.notes.append(
                "queries and keys are normed over all heads at once: `qk_norm=` of `DecoderAttention` takes two layers,"
                " of q and of k, that do it (docs/new-plugin.md of vllm-core shows one)"
            )

    def _share(self, reference: Reference | None) -> int:
        full = reference.tiny if reference and self.structure is reference.structure else self.made.full
        return int(full.get("hidden_size", 0)) // int(full.get("num_attention_heads", 1))

    def answers(self) -> dict[str, Any]:
        made, norms = self.made, self.structure.norms
        whole = self._norm("c.hidden_size")
        shared = self.structure.parallel
        attention = self._attention_extras() + self._lines("attention", shared)
        mlp = self._lines("mlp", shared)
        gated = self.structure.gated
        act = f"act=c.{made.act}" if made.act else 'act="silu"' if gated else 'act="gelu"'
        bias = self._bias("mlp", "bias", "" if gated else "bias=False")
        head_bias = ", bias=True" if "head" in self.structure.biases else ""
        head = f"LMHead(c.vocab_size, c.hidden_size{head_bias})"
        if made.has("tie_word_embeddings"):
            head = f"TiedHead() if c.tie_word_embeddings else {head}"
        elif not self.structure.has_head:
            head = "TiedHead()"
        texts = [*attention, *mlp, whole, head]
        layer = "ParallelDecoderLayer" if shared else "DecoderLayer"
        block = "GatedMLP" if gated else "MLP"
        names = {"CausalLM", "DecoderAttention", layer, block, "LayerStack", "TokenEmbedding"}
        words = ("RMSNorm", "LayerNorm", "NoNorm", "AddOnly", "TiedHead", "LMHead", "Rotary")
        names |= {word for word in words if any(f"{word}(" in text for text in texts)}
        if not norms:
            self.notes.append(
                "no name of a tensor says where the norms of a layer are; `Config` and layers are a guess"
            )
        return {
            "config_fields": [str(field) for field in made.fields],
            "has_head_dim": made.has("head_dim"),
            "layer": layer,
            "layer_norm": shared,
            "norm_partial": whole.replace("(", ", ").join(("partial(", "")),
            "attention": _call("DecoderAttention", attention, room=101),
            "mlp": _call(
                block, ["c.hidden_size", "c.intermediate_size", act, *([bias] if bias else []), *mlp], room=107
            ),
            "final_norm": whole,
            "head": head,
            "rope_defaults": made.rope_defaults,
            "layers_import": sorted(names, key=_isort),
            "rules": self.rules,
            "fused": any("Split(" in line for line in self.rules),
        }

    def _norm(self, size: str) -> str:
        made = self.made
        eps = f"c.{made.eps}" if made.eps else "1e-5"
        bias = "" if self.norm == "RMSNorm" or "norms" in self.structure.biases else ", bias=False"
        return f"{self.norm}({size}, {eps}{bias})"

    def _lines(self, half: str, shared: bool) -> list[str]:
        norms = self.structure.norms
        before = "NoNorm()" if shared else "norm()"
        if f"{half}.norm" not in norms and f"{half}.post_norm" in norms:
            before = "AddOnly()"
        return [f"norm={before}", *(["post_norm=norm()"] if f"{half}.post_norm" in norms else [])]

    def _attention_extras(self) -> list[str]:
        made = self.made
        kv = "c.num_key_value_heads" if made.has("num_key_value_heads") else "c.num_attention_heads"
        lines = ["hidden=c.hidden_size", "heads=c.num_attention_heads", f"kv_heads={kv}", f"head_dim={self.head_dim}"]
        lines += [
            line for line in (self._bias("attention.qkv", "bias"), self._bias("attention.out", "out_bias")) if line
        ]
        if made.rope:
            turned = self.reference is not None and self.reference.interleaved
            parameters = '{**c.rope_parameters, "interleaved": True}' if turned else "c.rope_parameters"
            lines.append(f"rotary=Rotary({self.head_dim}, {parameters})")
        if self.per_head_norm:
            lines.append(f"qk_norm={self._norm(self.head_dim)}")
        if made.has("sliding_window"):
            among = made.has("layer_types")
            lines.append(
                'window=c.sliding_window if c.layer_types[i] == "sliding_attention" else None'
                if among
                else "window=c.sliding_window"
            )
        return lines

    def _bias(self, part: str, argument: str, otherwise: str = "") -> str:
        flag = next((name for name, parts in self.made.flags.items() if part in parts), "")
        if flag:
            return f"{argument}=c.{flag}"
        if part in self.structure.biases:
            return f"{argument}=True"
        return otherwise


def _call(name: str, arguments: list[str], room: int) -> str:
    """As the formatter has it. ``room``: characters of the whole call on one line."""
    inside = ", ".join(arguments)
    if len(name) + 2 + len(inside) <= room:
        return f"{name}({inside})"
    if len(inside) <= LINE - 12:
        return f"{name}(\n            {inside}\n        )"
    return f"{name}(\n" + "".join(f"            {one},\n" for one in arguments) + "        )"


def _isort(name: str) -> tuple[int, str]:
    """Constants, classes, functions: the order of imports that ruff wants."""
    return (0 if name.isupper() else 1 if name[0].isupper() else 2), name.lower()
