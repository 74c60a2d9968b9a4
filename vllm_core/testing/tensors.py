"""Every tensor of the checkpoint has one place in the model, and matters there."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatch
from typing import ClassVar

import pytest
import torch
from torch import Tensor

from vllm_core.interfaces.weights import WeightSource
from vllm_core.testing.case import Case, whole
from vllm_core.testing.compare import distance
from vllm_core.testing.overlay import Overlay
from vllm_core.weights import LoadReport, WeightsError, load_weights

STRENGTH = 0.05  # of a tensor's own size
UNKNOWN = "an.unknown.tensor.weight"


class Tensors:
    """Tests of each variant in the first dtype.

    inert   tensor name with wildcards -> why changing it cannot change the logits (e.g. a key's bias without
            positions, which softmax does not see)
    """

    inert: ClassVar[Mapping[str, str]] = {}

    def test_each_tensor_matters(self, sharp: Case) -> None:
        """A tensor that is changed a little must break the comparison, unless it is ``inert``: then it must not."""
        served, model, source, ids = sharp.idle(), sharp.model, _source(sharp), sharp.prompt(40)
        ignored = load_weights(model, source).ignored
        lost, alive = [], []
        for name in source.tensors():
            if name in ignored:
                continue
            load_weights(model, Overlay(source, {name: _shaken(source.read(name))}))
            broken = distance(whole(served, ids), sharp.want(ids)) > sharp.tolerance
            inert = [pattern for pattern in self.inert if fnmatch(name, pattern)]
            if broken and inert:
                alive.append(f"{name} (inert by {inert[0]!r}: {self.inert[inert[0]]})")
            elif not broken and not inert:
                lost.append(name)
        load_weights(model, source)
        sharp.agree_on(served, ids, "after all weights were read again")
        if lost or alive:
            raise AssertionError(
                f"{sharp.name}: each tensor was changed by {STRENGTH:.0%} of its size, one after the other"
                + _listed("no change of the logits; the model does not use, or wash out,", lost)
                + _listed("a change, though declared inert:", alive)
            )

    def test_every_parameter_is_filled_from_the_checkpoint(self, sharp: Case) -> None:
        model = sharp.model
        with torch.no_grad():
            for p in model.parameters():
                if p.is_floating_point():
                    p.fill_(torch.nan)
        load_weights(model, _source(sharp))
        unfilled = [name for name, p in model.named_parameters() if p.is_floating_point() and p.isnan().any()]
        assert not unfilled, f"{sharp.name}: parameters that loading leaves as they were: {', '.join(unfilled)}"

    def test_every_tensor_is_used_or_ignored_with_a_reason(self, sharp: Case) -> None:
        source = _source(sharp)
        report: LoadReport = load_weights(sharp.model, source)
        assert report.tensors + len(report.ignored) == len(source.tensors())
        assert all(report.ignored.values())

    def test_an_unknown_tensor_is_an_error_that_names_it(self, sharp: Case) -> None:
        with pytest.raises(WeightsError, match=UNKNOWN.replace(".", r"\.")):
            load_weights(sharp.model, Overlay(_source(sharp), {UNKNOWN: torch.zeros(2, 2)}))

    def test_a_missing_tensor_is_an_error_that_names_it(self, sharp: Case) -> None:
        model, source = sharp.model, _source(sharp)
        for name in source.tensors().keys() - load_weights(model, source).ignored.keys():
            with pytest.raises(WeightsError) as error:
                load_weights(model, Overlay(source, without=[name]))
            assert name in str(error.value), f"{sharp.name}: without {name} loading says only\n{error.value}"


def _source(case: Case) -> WeightSource:
    return case.served.resolved.checkpoint.source


def _shaken(tensor: Tensor) -> Tensor:
    noise = torch.randn(tensor.shape, generator=torch.Generator().manual_seed(1))
    size = tensor.float().square().mean().sqrt()
    return (tensor.float() + STRENGTH * size * noise).to(tensor.dtype)


def _listed(what: str, names: list[str]) -> str:
    return f"\n  {what} {', '.join(names)}" if names else ""
