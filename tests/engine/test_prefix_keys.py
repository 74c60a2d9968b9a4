"""What keeps cached prefixes of the same tokens apart, from the message to the cache."""

from __future__ import annotations

import attrs
import msgspec
import pytest

from tests.engine.fake_device import FakeDevice
from tests.engine.harness import check_empty, make_engine
from vllm_core.engine import wire
from vllm_core.engine.cache import ExtraKey
from vllm_core.engine.messages import NewRequest
from vllm_core.interfaces.steps import RowSampling

PROMPT = [1, 2, 3, 4, 5, 6, 7, 8, 9]
IMAGE = ExtraKey(b"image", 5, 7)


def new(name, **keys) -> NewRequest:
    sampling = RowSampling(temperature=0.0)
    return NewRequest(request_id=name, token_ids=PROMPT, sampling=sampling, stop_ids=[], max_total=10, **keys)


@pytest.mark.parametrize(
    ("first", "second", "cached"),
    [
        ({}, {}, 8),
        ({"salt": b"a"}, {"salt": b"a"}, 8),
        ({"salt": b"a"}, {"salt": b"b"}, 0),
        ({"salt": b"a"}, {}, 0),
        ({"extra_keys": [ExtraKey(b"adapter")]}, {"extra_keys": [ExtraKey(b"adapter")]}, 8),
        ({"extra_keys": [ExtraKey(b"adapter")]}, {"extra_keys": [ExtraKey(b"another")]}, 0),
        ({"extra_keys": [IMAGE]}, {"extra_keys": [IMAGE]}, 8),
        ({"extra_keys": [IMAGE]}, {"extra_keys": [attrs.evolve(IMAGE, key=b"other")]}, 4),  # the same before it
        ({"extra_keys": [IMAGE]}, {}, 4),
        ({"reads_prefix": False}, {"reads_prefix": False}, 0),
        ({"reads_prefix": False}, {}, 8),
    ],
)
def test_a_prefix_is_found_again_only_under_the_same_salt_and_keys(first, second, cached):
    engine = make_engine(FakeDevice(block_size=4))
    found = []
    for name, keys in (("first", first), ("second", second)):
        engine.core.add(new(name, **keys))
        while engine.core.has_work:
            found += [update.num_cached for update in engine.core.step()]
    assert found == [0, cached]
    check_empty(engine)


def test_salts_and_keys_cross_the_wire_as_they_are():
    sent = wire.Add([new("a", salt=b"\0salt", extra_keys=[IMAGE, ExtraKey(b"adapter")], sibling_of="b")])
    assert wire.decode_down(wire.encode(sent)) == sent


def test_keys_of_another_shape_are_refused_by_the_wire():
    raw = msgspec.to_builtins(wire.Add([new("a")]))
    raw["requests"][0]["extra_keys"] = [{"key": 3}]
    with pytest.raises(msgspec.ValidationError):
        wire.decode_down(msgspec.msgpack.encode(raw))
