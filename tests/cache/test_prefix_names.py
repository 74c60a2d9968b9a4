import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vllm_core.engine.cache import ExtraKey
from vllm_core.engine.cache.hashing import PrefixChain

TOKENS = list(range(40))


def name(length=8, tokens=TOKENS, **settings):
    return PrefixChain(4, tokens, **settings).at(length)


def test_a_name_depends_on_every_token_before_its_end_and_on_none_behind():
    for position in range(12):
        other = TOKENS.copy()
        other[position] += 1
        assert (name(tokens=other) == name()) is (position >= 8)


def test_names_do_not_depend_on_the_order_in_which_they_are_asked_for():
    chain = PrefixChain(4, TOKENS)
    late = chain.at(20)
    assert chain.at(8) == name(8)
    assert name(20) == late


def test_a_name_is_a_whole_sha256_digest():
    assert len(name()) == 32


def test_another_salt_makes_other_names():
    assert len({name(), name(salt=b"a"), name(salt=b"b"), name(salt=b"a\0")}) == 4


def test_an_adapter_makes_other_names():
    assert name(extras=[ExtraKey(b"adapter 1")]) not in (name(), name(extras=[ExtraKey(b"adapter 2")]))


def test_media_change_names_from_their_first_block_on():
    image = [ExtraKey(b"image", start=5, stop=7)]
    assert name(4, extras=image) == name(4)
    assert name(8, extras=image) != name(8)
    assert name(12, extras=image) != name(12)


def test_the_same_media_one_token_later_are_another_prefix():
    assert name(extras=[ExtraKey(b"image", 4, 6)]) != name(extras=[ExtraKey(b"image", 5, 7)])


def test_two_keys_are_not_the_one_that_they_spell_together():
    assert name(extras=[ExtraKey(b"ab"), ExtraKey(b"c")]) != name(extras=[ExtraKey(b"a"), ExtraKey(b"bc")])


def test_tokens_that_nobody_knows_yet_have_no_name():
    with pytest.raises(ValueError, match="only 6 are known"):
        name(8, tokens=TOKENS[:6])


def test_after_truncation_the_new_tokens_count():
    tokens = TOKENS.copy()
    chain = PrefixChain(4, tokens)
    before = chain.at(16)
    tokens[9:] = [99] * 20
    chain.truncate(9)
    assert chain.at(8) == name(8)
    assert chain.at(16) == name(16, tokens=tokens) != before


def test_a_chain_that_learns_from_another_takes_over_the_shared_prefix_and_names_its_own_tokens_otherwise():
    settings = {"salt": b"s", "extras": [ExtraKey(b"adapter")]}
    parent = PrefixChain(4, TOKENS, **settings)
    parent.at(12)
    tokens = TOKENS[:10] + [99] * 10
    child = PrefixChain(4, tokens, **settings)
    child.learn(parent, 10)
    assert child.at(8) == parent.at(8)
    assert child.at(12) == PrefixChain(4, tokens, **settings).at(12) != parent.at(12)


def test_a_chain_learns_nothing_from_one_with_another_salt():
    with pytest.raises(ValueError, match="different salts"):
        PrefixChain(4, TOKENS, salt=b"mine").learn(PrefixChain(4, TOKENS, salt=b"yours"), 8)


described = st.tuples(
    st.lists(st.integers(0, 2), min_size=8, max_size=8),
    st.binary(max_size=3),
    st.lists(st.builds(ExtraKey, st.binary(max_size=2), st.integers(0, 7), st.none() | st.integers(8, 9)), max_size=2),
)


@given(one=described, other=described)
@settings(max_examples=300, deadline=None)
def test_two_prefixes_have_the_same_name_only_if_tokens_salt_and_keys_are_the_same(one, other):
    first, second = (name(tokens=tokens, salt=salt, extras=extras) for tokens, salt, extras in (one, other))
    assert (first == second) is (one == other)
    assert first == name(tokens=list(one[0]), salt=one[1], extras=list(one[2]))
