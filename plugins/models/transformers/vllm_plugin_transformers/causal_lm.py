"""`TransformersForCausalLM`: a decoder of transformers, run as it is, with our cache in place of its own.

transformers keeps the layers, the loss of precision where it wants it, and what it does to logits. We keep
positions, pages and weights. Letters: T tokens of a step, H hidden size, N rows of which logits are wanted.
"""

from __future__ import annotations

import json
from typing import Any

import torch
from torch import Tensor

from vllm_core.interfaces.batch import Batch
from vllm_core.interfaces.cache import FullAttentionCache, SlidingWindowCache
from vllm_core.interfaces.plan import Plan
from vllm_core.layers import Layer
from vllm_plugin_transformers.errors import CannotServe
from vllm_plugin_transformers.fill import assign_loads, make_tensors
from vllm_plugin_transformers.fits import find_class
from vllm_plugin_transformers.interface import Running, Slot
from vllm_plugin_transformers.places import find_places, make_rules, without_place
from vllm_plugin_transformers.skeleton import construct
from vllm_plugin_transformers.trace import META, Attending, follow

ROOT = "hf"  # where transformers' model lies in ours
_FOLLOWED: dict[str, list[Attending]] = {}
"""Of the last model, by its config."""


class LastHidden:
    """What layers return to a head, as far as we have it: the hidden states. Everything else is None."""

    def __init__(self, hidden: Tensor | None) -> None:
        self.last_hidden_state = hidden

    def __getattr__(self, name: str) -> None:
        return None

    def __getitem__(self, item: Any) -> Any:
        return (self.last_hidden_state,)[item]


def _layers_of(hf: Any) -> Any:
    """The module that the head of ``hf`` takes hidden states from."""
    for found in (hf.get_decoder(), hf.base_model):
        if found is not hf and hasattr(found, "get_input_embeddings"):  # some call their head a decoder
            return found
    raise CannotServe("its layers and its head are one module")


class TransformersForCausalLM(Layer):
    """The surface of `interfaces.model.Model` over transformers' class for the config's architecture."""

    def __init__(self, hf: Any, known: list[Attending] | None = None) -> None:
        super().__init__()
        self.hf = hf
        base = _layers_of(hf)
        self.whole = base.forward  # all layers and the norm; the module's own forward serves the head from now on
        self.running = Running()
        self.given: Tensor | None = None  # hidden states [1, N, H] while the head runs alone
        self.mask = torch.empty(1, 1, 1, 1, device=META)  # of four dimensions: then transformers builds none
        # An engine constructs its model twice; what it asks for is the same both times.
        self.attending = known or follow(hf, base, self._layers, self.mask)
        base.forward = self._hand_over
        self.places, tied = find_places(hf)
        rules = make_rules(self.places, tied, ROOT, hf.base_model_prefix)
        self.weights = without_place(hf, self.places) + rules
        self.vocab_size = self._follow_head()

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> TransformersForCausalLM:
        """``ValueError`` says why transformers' model cannot run on our cache."""
        found, key = find_class(config), json.dumps(config, sort_keys=True, default=str)
        try:
            made = cls(construct(found, config), _FOLLOWED.get(key))
        except CannotServe as error:
            raise CannotServe(
                f"transformers' {found.__name__} cannot run on a paged cache: {error}\n"
                "  by      vllm-plugin-transformers, which serves what no plugin lists\n"
                f"  instead a plugin that lists {found.__name__}"
            ) from error
        _FOLLOWED.clear()
        _FOLLOWED[key] = made.attending
        return made

    def bind(self, plan: Plan, path: str = "") -> None:
        self.path = path
        if getattr(plan, "quantization", None) is not None:
            raise CannotServe("the transformers fallback does not quantize weights; leave --quantization out")
        for kind in ("tp", "pp"):
            if (size := plan.group(kind).size) > 1:
                raise CannotServe(
                    f"the transformers fallback runs on one device, and the {kind} group has {size} ranks"
                )
        for call in self.attending:
            self._bind_attention(plan, call)
        make_tensors(self.hf, plan.dtype, plan.torch_device)
        self.hf.config.dtype = plan.dtype
        assign_loads(self.hf, self.places)

    def embed(self, ids: Tensor, batch: Batch) -> Tensor:
        """ids int64 [T] -> [T, H]."""
        return self.hf.get_input_embeddings()(ids)

    def forward(self, x: Tensor, batch: Batch) -> Tensor:
        """[T, H] -> [T, H], final norm included."""
        self.running.batch = batch
        try:
            return self._layers(x.unsqueeze(0), batch.positions.unsqueeze(0))[0]
        finally:
            self.running.batch = None

    def logits(self, hidden: Tensor) -> Tensor:
        """[N, H] -> [N, vocab_size], scaled and capped as transformers does it."""
        self.given = hidden.unsqueeze(0)
        try:
            return self.hf(inputs_embeds=self.given, use_cache=False).logits[0]
        finally:
            self.given = None

    def _layers(self, x: Tensor, positions: Tensor) -> Tensor:
        """x [1, T, H], positions int64 [1, T] -> [1, T, H]."""
        return self.whole(inputs_embeds=x, position_ids=positions, attention_mask=self.mask, use_cache=False)[0]

    def _hand_over(self, *args: Any, **kwargs: Any) -> LastHidden:
        """Instead of the layers, when transformers' class runs to get at its head."""
        return LastHidden(self.given)

    def _follow_head(self) -> int:
        """The number of logits, found on the meta device."""
        hidden = torch.empty(1, self.hf.get_input_embeddings().weight.shape[-1], dtype=self.hf.dtype, device=META)
        try:
            with torch.no_grad():
                return self.logits(hidden).shape[-1]
        except Exception as error:
            raise CannotServe(f"its head cannot run alone ({type(error).__name__}: {error})") from error

    def _bind_attention(self, plan: Plan, call: Attending) -> None:
        path = f"{ROOT}.{call.path}"
        sizes: dict[str, Any] = {"num_kv_heads": call.kv_heads, "k_dim": call.k_dim, "v_dim": call.v_dim}
        cache = sizes | {"dtype": str(plan.kv_dtype).removeprefix("torch.")}
        spec = FullAttentionCache(**cache) if call.window is None else SlidingWindowCache(**cache, window=call.window)
        plan.cache(path, spec)
        bound = plan.attention(
            path,
            num_heads=call.heads,
            **sizes,
            scale=call.scale,
            causal=True,
            window=call.window,
            soft_cap=call.soft_cap,
            sinks=call.sinks,
        )
        self.hf.get_submodule(call.path).paged_slot = Slot(bound, self.running)
