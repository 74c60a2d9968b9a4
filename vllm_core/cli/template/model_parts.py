"""A new model's layers, as lines of Python: what the structure of a checkpoint and its fields say about them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vllm_core.cli.template.model_fields import Fields
    from vllm_core.cli.template.reference import Reference
    from vllm_core.cli.template.tensors import Structure

__all__ = ["Parts"]


class Parts:
    """The layers, as Python's text."""

    def __init__(self, made: Fields, structure: Structure, reference: Reference | None) -> None:
        self.made, self.structure, self.reference = made, structure, reference
        self.notes: list[str] = []
        self.dropped: list[str] = []
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
            self.dropped = [line for line in structure.rules if "attention.{x}_norm" in line]
            self.rules = [line for line in structure.rules if line not in self.dropped]
            self.notes.append(
                "queries and keys are normed over all heads at once, and `DecoderAttention` norms each head: write"
                " the attention of this model from QKVLinear, Attention and RowLinear (docs/new-plugin.md shows one)"
            )

    def _share(self, reference: Reference | None) -> int:
        full = reference.tiny if reference and self.structure is reference.structure else self.made.full
        return int(full.get("hidden_size", 0)) // int(full.get("num_attention_heads", 1))

    def answers(self) -> dict[str, Any]:
        made, norms = self.made, self.structure.norms
        whole = self._norm("c.hidden_size")
        shared = self.structure.parallel
        attention = self._lines("attention", whole, shared) + self._attention_extras()
        mlp = self._lines("mlp", whole, shared)
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
        names = {"CausalLM", "DecoderAttention", layer, block, "LayerStack", "TokenEmbedding"} | {"read_config"}
        words = ("RMSNorm", "LayerNorm", "NoNorm", "AddOnly", "TiedHead", "LMHead", "Rotary")
        names |= {word for word in words if any(f"{word}(" in text for text in texts)}
        if made.rope:
            names.add("rope_parameters")
        if not norms:
            self.notes.append(
                "no name of a tensor says where the norms of a layer are; `Config` and layers are a guess"
            )
        return {
            "config_fields": [str(field) for field in made.fields],
            "computed": [field.name for field in made.fields if field.computed],
            "has_head_dim": made.has("head_dim"),
            "layer": layer,
            "layer_norm": whole if shared else "",
            "mlp_class": block,
            "attention_lines": attention,
            "mlp_lines": ["c.hidden_size", "c.intermediate_size", act, *([bias] if bias else []), *mlp],
            "final_norm": whole,
            "head": head,
            "rope": made.rope,
            "rope_defaults": made.rope_defaults,
            "layers_import": sorted(names, key=_isort),
            "rules": self.rules,
        }

    def _norm(self, size: str) -> str:
        made = self.made
        eps = f"c.{made.eps}" if made.eps else "1e-5"
        bias = "" if self.norm == "RMSNorm" or "norms" in self.structure.biases else ", bias=False"
        return f"{self.norm}({size}, {eps}{bias})"

    def _lines(self, half: str, whole: str, shared: bool) -> list[str]:
        norms = self.structure.norms
        before = "NoNorm()" if shared else whole
        if f"{half}.norm" not in norms and f"{half}.post_norm" in norms:
            before = "AddOnly()"
        return [f"norm={before}", *([f"post_norm={whole}"] if f"{half}.post_norm" in norms else [])]

    def _attention_extras(self) -> list[str]:
        made = self.made
        kv = "c.num_key_value_heads" if made.has("num_key_value_heads") else "c.num_attention_heads"
        lines = ["hidden=c.hidden_size", "heads=c.num_attention_heads", f"kv_heads={kv}", "head_dim=c.head_dim"]
        lines += [
            line for line in (self._bias("attention.qkv", "bias"), self._bias("attention.out", "out_bias")) if line
        ]
        if made.rope:
            lines.append("rotary=Rotary(c.head_dim, c.rope_parameters)")
        if self.per_head_norm:
            lines.append(f"qk_norm={self._norm('c.head_dim')}")
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


def _isort(name: str) -> tuple[int, str]:
    """Constants, classes, functions: the order of imports that ruff wants."""
    return (0 if name.isupper() else 1 if name[0].isupper() else 2), name.lower()
