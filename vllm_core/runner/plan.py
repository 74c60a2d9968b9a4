"""The choices of one engine, made while its layers are bound. `interfaces.plan.Plan` says what each answer is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import attrs
import torch
from torch import Tensor

from vllm_core.distributed.single import SingleGroup
from vllm_core.interfaces.attention import AttentionBackend
from vllm_core.interfaces.cache import CachePlan, CacheSpec, DeclaredCache, RecurrentCache
from vllm_core.interfaces.device import Device
from vllm_core.interfaces.group import ProcessGroup
from vllm_core.interfaces.quantization import EmbeddingMethod, LinearMethod, LinearShape, Quantization
from vllm_core.interfaces.queries import OpQuery, RopeQuery
from vllm_core.interfaces.rope import RotaryTable
from vllm_core.layers.dense import DenseLinear
from vllm_core.ops.table import LAYER_OPS, OPS
from vllm_core.plugins.errors import NoOffer, did_you_mean
from vllm_core.runner import invariance
from vllm_core.runner.ahead import Ahead, op_key
from vllm_core.runner.bound_state import PagedState, States
from vllm_core.runner.paged import AttentionGroups, PagedAttention, PlanCaches
from vllm_core.runner.step_ops import StepOps
from vllm_core.weights.rules import Table

SINGLE = SingleGroup()


class EnginePlan:
    """`interfaces.plan.Plan`, and what comes after binding: `finish`, then `bind_caches`.

    choose         a Selector, or a chooser that answers from a lock
    groups         process groups by name; a name that is missing is a group of one
    quantization   of the checkpoint; None if it is dense
    weight_table   from layers' paths back to the checkpoint names that quantization goes by
    max_model_len  tokens of the longest sequence; positions up to max_position have room for drafts
    batch_invariant  whether a row's result may not depend on the rows beside it; then `check_invariance` follows
    stage_layers   of each pipeline stage, if the user said so
    num_drafts     guesses a row and step
    second         ``second.SecondModels``, which makes models beside the one that is served; None: there are none
    On the meta device choices are made and recorded and nothing is compiled or allocated.
    """

    def __init__(
        self,
        choose: Any,
        dtype: torch.dtype,
        torch_device: torch.device,
        device: Device,
        groups: Mapping[str, ProcessGroup],
        max_tokens: int,
        max_position: int,
        quantization: Quantization | None = None,
        weight_table: Table | None = None,
        kv_dtype: torch.dtype | None = None,
        max_model_len: int | None = None,
        second: Any = None,
        batch_invariant: bool = False,
        stage_layers: Sequence[int] = (),
        num_drafts: int = 0,
    ) -> None:
        self.choose, self.stage_layers = choose, stage_layers
        self.second = second
        self.dtype, self.kv_dtype = dtype, kv_dtype or dtype
        self.torch_device, self.device = torch.device(torch_device), device
        self.groups = dict(groups)
        self.max_tokens, self.max_position = max_tokens, max_position
        self.max_model_len = max_model_len or max_position
        self.quantization, self.weight_table = quantization, weight_table
        self.dry = self.torch_device.type == "meta"
        self.declared: list[DeclaredCache] = []
        self.batch_invariant = batch_invariant
        self._attention = AttentionGroups(choose, device, self.torch_device, dtype, self.kv_dtype, batch_invariant)
        self._states = States(1 + num_drafts)
        self._covered: list[Any] = []  # layers that a fused kernel computes
        self._no_graph: set[str] = set()
        self.step_ops = StepOps()
        self._ops: dict[Any, Callable[..., Any]] = {}
        self._fused: dict[Any, Any] = {}
        self._rotary: dict[Any, RotaryTable] = {}
        self.asked: list[OpQuery] = []  # ops and layers that somebody offers a kernel for
        self.ahead = Ahead(torch.device("cpu"))  # who has kernels that were begun before

    def group(self, name: str) -> ProcessGroup:
        return self.groups.get(name, SINGLE)

    def linear(self, path: str, shape: LinearShape) -> LinearMethod:
        if self.quantization is not None:
            method = self._quantized(self.quantization, path, shape)
            if method is not None:
                return method
        out_size = sum(shape.out_sizes)
        return DenseLinear(self.op("linear", in_size=shape.in_size, out_size=out_size, bias=shape.bias))

    def embedding(self, path: str, shape: LinearShape) -> EmbeddingMethod | None:
        ask = getattr(self.quantization, "embedding", None)
        return ask(self._sources(path, ""), shape) if ask is not None else None

    def _sources(self, path: str, slot: str) -> list[str]:
        """Checkpoint modules any of which may fill a slot of the layer."""
        if self.weight_table is None:
            return [path]
        found = self.weight_table.names(path, "weight", slot)
        return [name.rpartition(".")[0] for name in found] or [path]

    def _quantized(self, quantization: Quantization, path: str, shape: LinearShape) -> LinearMethod | None:
        if (matrices := getattr(quantization, "matrices", None)) is not None:
            return matrices({slot: self._sources(path, slot) for slot in shape.slots}, shape)
        names = self.weight_table.sources(path) if self.weight_table is not None else [path]
        methods = {name: quantization.linear(name, shape) for name in names or [path]}
        kinds = {type(method) for method in methods.values()}
        if len(kinds) > 1:
            listed = "\n".join(f"  {n}: {type(m).__name__ if m else 'dense'}" for n, m in methods.items())
            raise ValueError(
                f"{path} multiplies {len(methods)} matrices of the checkpoint at once, and they are stored in"
                f" different ways:\n{listed}"
            )
        return next(iter(methods.values()))

    def op(self, name: str, **shape: int | float | str | bool | None) -> Callable[..., Any]:
        if name not in OPS:
            raise ValueError(
                f"no op is called {name!r}{did_you_mean(name, OPS)}; the table has {', '.join(sorted(OPS))}"
            )
        key = (name, *sorted(shape.items()))
        if key not in self._ops:
            query = self._query(name, shape)
            kernel, why = self._kernel(query)
            if kernel is None and self.batch_invariant and not invariance.is_invariant(query):
                self._ops[key] = invariance.Dependent(query, why)
            elif kernel is None or self.dry:
                self._ops[key] = OPS[name].reference
            else:
                self._ops[key] = self.ahead.take(op_key(query), partial(kernel, query))
        return self._ops[key]

    def fused(self, name: str, layer: Any) -> Callable[..., Any] | None:
        if name not in LAYER_OPS:
            raise ValueError(f"no fused layer is called {name!r}; known are {', '.join(LAYER_OPS)}")
        query = self._query(name, layer.fused_shape())
        key = (name, *sorted(query.shape.items()))
        if key not in self._fused:
            self._fused[key], _ = self._kernel(query)
            self.ahead.take(op_key(query), lambda: None)  # wait for what it compiles
        kernel = self._fused[key]
        fused = None if kernel is None or self.dry else kernel(query, layer)
        if fused is not None or (self.dry and kernel is not None):
            self._covered.append(layer)
        return fused

    def check_invariance(self, model: Any, others: Sequence[Any] = ()) -> None:
        """All its layers are bound: with ``batch_invariant``, `NoOffer` names what depends on the batch."""
        if self.batch_invariant:
            invariance.check(model, self._covered, others)

    def _query(self, name: str, shape: Mapping[str, int | float | str | bool | None]) -> OpQuery:
        return OpQuery(
            op=name,
            dtype=str(self.dtype).removeprefix("torch."),
            device=self.device,
            shape=dict(shape),
            batch_invariant=self.batch_invariant,
        )

    def _kernel(self, query: OpQuery) -> tuple[Callable[..., Any] | None, tuple[str, ...]]:
        """The target of the best offer; None when there is none, and why: then the core's own version runs."""
        try:
            decision = self.choose.choose("op_kernel", query)
        except NoOffer as error:
            return None, error.facts.get("why", ())
        if "graph" not in decision.offer.capabilities:
            self._no_graph.add(f"{query.op} by {decision.offer.name} ({decision.provided.distribution})")
        self.asked.append(query)
        return decision.load(), ()

    def rotary(self, head_dim: int, params: dict[str, Any]) -> RotaryTable:
        kind = params.get("rope_type", params.get("type", "default"))
        key = (head_dim, repr(sorted(params.items())))
        if key not in self._rotary:
            query = RopeQuery(
                rope_type=kind,
                head_dim=head_dim,
                params=params,
                max_position=self.max_position,
                max_model_len=self.max_model_len,
            )
            decision = self.choose.choose("rope_variant", query)
            variant, params = decision.load(), {**params, **decision.offer.options}
            if self.dry:
                # On the meta device torch.arange would import a compiler, which took 0.75 s of each start.
                one = variant(head_dim, params, 1, torch.device("cpu"))
                shape = (self.max_position, one.cos.shape[1])
                empty = torch.empty(shape, dtype=one.cos.dtype, device=self.torch_device)
                self._rotary[key] = attrs.evolve(one, cos=empty, sin=empty)
            else:
                self._rotary[key] = variant(head_dim, params, self.max_position, self.torch_device)
        return self._rotary[key]

    def cache(self, name: str, spec: CacheSpec, shared_with: str | None = None) -> None:
        if any(known.name == name for known in self.declared):
            raise ValueError(f"cache {name!r} is declared twice; a layer with several gives each a suffix")
        self.declared.append(DeclaredCache(name=name, spec=spec, shared_with=shared_with))

    def attention(self, path: str, **settings: Any) -> PagedAttention:
        return self._attention.declare(path, settings)

    def state(self, path: str, spec: RecurrentCache) -> PagedState:
        self._no_graph.add("layers with recurrent states")  # nothing has shown yet that they can
        self.cache(path, spec)
        return self._states.declare(path, spec)

    def second_model(self, name: str, model: str, *, revision: str | None = None, quantization: str = "") -> Any:
        """`interfaces.proposer.ProposerPlan`: another model, bound, whose caches lie under ``name.``."""
        if self.second is None:
            raise ValueError(f"this plan has no place for a second model, and {name!r} was asked for")
        return self.second.make(self, name, model=model, revision=revision, quantization=quantization)

    def groups_of(self, model: str = "") -> frozenset[int]:
        """Cache groups that a second model's attention reads, or ("") that of the model served. After ``finish``."""
        seconds = tuple(f"{name}." for name in (self.second.models if self.second is not None else ()))
        return frozenset(
            layer.group
            for path, layer in self._attention.layers.items()
            if (path.startswith(f"{model}.") if model else not path.startswith(seconds))
        )

    def no_graph(self) -> list[str]:
        """What was chosen and cannot stand in a captured graph; [] if all can. After ``finish``."""
        return sorted(self._no_graph | self._attention.no_graph())

    def finish(self, plan_caches: PlanCaches, block_size: int | None) -> CachePlan:
        """All layers are bound: choose attention backends, page layouts and one block size, and make the backends.

        ``plan_caches`` is ``vllm_core.engine.cache.grouping.plan_caches``; ``block_size`` the user's, or None.
        """
        self.caches = self._attention.finish(self.declared, plan_caches, block_size)
        return self.caches

    def bind_caches(self, caches: CachePlan, tensors: Sequence[Tensor]) -> list[AttentionBackend | None]:
        """Give every layer views on its pages in ``tensors``, uint8 [num_pages, page_bytes] each.

        Returns what begins the step of each cache group; None where no attention reads it. May be called again.
        """
        self._states.attach(tensors, caches)
        return self._attention.attach(tensors, caches, self.declared)
