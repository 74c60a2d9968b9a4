"""What a backend does to memory: it stores keys and values where it is told to, and changes nothing else."""

from __future__ import annotations

import attrs
import pytest
import torch
from torch import Tensor

from vllm_core.interfaces.attention import AttentionStep
from vllm_core.layers.page_layouts import LAYOUTS, HeadLayout
from vllm_core.testing.attention_asked import AskedBackend, layouts_of
from vllm_core.testing.attention_cases import BATCHES, FEATURES, make_query
from vllm_core.testing.attention_trial import Layer, Trial


class AttentionPages:
    """Bytes are compared, those of the pages' padding included."""

    @pytest.mark.parametrize("sizes", ["plain", "v_dim"])
    def test_write_fills_its_slots_in_the_layout_and_nothing_else(self, asked: AskedBackend, sizes: str) -> None:
        settings = {**self.plain(), **FEATURES.get(sizes, {})}  # type: ignore[attr-defined]
        if self.refused(settings):  # type: ignore[attr-defined]
            settings = self.plain()  # type: ignore[attr-defined]
        query = make_query(settings, asked.device)
        for layout in [name for name in layouts_of(asked.offer(query)) if name in LAYOUTS]:
            trial = Trial(asked, query, layout=layout)
            step, layers = trial.prepare(trial.batch(BATCHES["all at once"]))
            kept = _bytes(step, layers)
            for layer, raw, pages in zip(layers, trial.raw, trial.pages, strict=True):
                raw.random_(0, 256)  # what the sequences' history left there could hide a write beside the slots
                want = raw.clone()
                stored = HeadLayout(layout).views(want, trial.spec, trial.block)
                for token, slot in enumerate(step.slots.tolist()):
                    page, place = divmod(slot, trial.block)
                    for part, new in zip(stored, (layer.k, layer.v), strict=True):
                        (part[page, place] if layout == "NHD" else part[page, :, place]).copy_(new[token])
                trial.backend.begin_step(step)
                trial.backend.write(layer.k, layer.v, pages, step)
                wrong = (raw != want).any(1).nonzero().flatten().tolist()
                assert not wrong, (
                    f"after write, pages in layout {layout} are not what they should be: {wrong[:8]}; the step writes"
                    f" to {sorted({slot // trial.block for slot in step.slots.tolist()})}"
                )
            assert _bytes(step, layers) == kept, "write changes its keys, its values or the step"

    def test_attend_changes_nothing_but_its_result(self, asked: AskedBackend) -> None:
        for name in ("plain", "window", "sinks"):
            settings = {**self.plain(), **FEATURES.get(name, {})}  # type: ignore[attr-defined]
            if self.refused(settings):  # type: ignore[attr-defined]
                continue
            trial = Trial(asked, make_query(settings, asked.device))
            step, layers = trial.prepare(trial.batch(BATCHES["all at once"]))
            metadata = trial.backend.begin_step(step)
            for layer, raw, pages in zip(layers, trial.raw, trial.pages, strict=True):
                trial.backend.write(layer.k, layer.v, pages, step)
                before, kept = raw.clone(), _bytes(step, layers)
                trial.backend.attend(layer.q, pages, step, metadata, layer.sinks)
                assert torch.equal(raw, before), f"{name}: attend changes pages"
                assert _bytes(step, layers) == kept, f"{name}: attend changes its queries, its sinks or the step"

    def test_a_step_never_waits_for_the_device(self, asked: AskedBackend) -> None:
        if not asked.is_cuda:
            pytest.skip("needs a CUDA device: on a CPU every operation waits")
        trial = Trial(asked, make_query(self.plain(), asked.device))  # type: ignore[attr-defined]
        sequences = trial.batch(BATCHES["all at once"])
        for again in range(2):  # what is compiled or allocated once happens in the first
            step, layers = trial.prepare(sequences)
            torch.cuda.synchronize()
            torch.cuda.set_sync_debug_mode("error" if again else "default")
            try:
                metadata = trial.backend.begin_step(step)
                for layer, pages in zip(layers, trial.pages, strict=True):
                    trial.backend.write(layer.k, layer.v, pages, step)
                    trial.backend.attend(layer.q, pages, step, metadata, layer.sinks)
            finally:
                torch.cuda.set_sync_debug_mode("default")


def _bytes(step: AttentionStep, layers: list[Layer]) -> list[bytes]:
    """All that a backend reads and may not change, less the pages."""
    found = [*attrs.asdict(step, recurse=False).values()]
    for layer in layers:
        found += [layer.q, layer.k, layer.v, layer.sinks]
    return [_plain(x) if isinstance(x, Tensor) else repr(x).encode() for x in found]


def _plain(x: Tensor) -> bytes:
    return x.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes()
