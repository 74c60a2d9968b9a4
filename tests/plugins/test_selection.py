"""Choosing: three-valued answers, ranks, prefer, figures, names, compatible sets."""

import json

import attrs
import pytest
from dummies import catalog_of
from hypothesis import given, settings
from hypothesis import strategies as st

from vllm_core.interfaces.device import Device
from vllm_core.interfaces.queries import ModelQuery, RopeQuery
from vllm_core.plugin import ModelEntry, Offer, Rank, Refusal
from vllm_core.plugins import Ambiguous, NoOffer, PluginError, Question, Selector, figures
from vllm_core.plugins.explain import explain, format_explain
from vllm_core.plugins.policy import Policy
from vllm_core.plugins.sets import conflict

HOOK = "attention_backend"
CPU = Device("cpu", name="a processor")
QUERY = {"heads": 9, "dtype": "float32"}


def offer(name, rank=Rank.PORTABLE, **more):
    return Offer(name=name, target="json:loads", rank=rank, **more)


def plugin(name, answer, **more):
    return {"name": name, HOOK: answer, **more}


def message(error):
    return str(error.value)


def test_the_highest_rank_wins_and_the_losers_say_why():
    catalog = catalog_of(
        plugin("a", offer("ref", Rank.REFERENCE)),
        plugin("b", offer("fast", Rank.TUNED)),
        plugin("c", Refusal("no window of 7 tokens", name="picky")),
        plugin("d", None, lists=[f"{HOOK}:quiet"]),
    )
    selector = Selector(catalog)
    decision = selector.choose(HOOK, QUERY)
    assert (decision.offer.name, decision.provided.distribution) == ("fast", "dist-b")
    assert decision.why == "rank TUNED over REFERENCE"
    assert decision.load() is json.loads
    notes = {a.plugin: a.note or a.refusal for a in decision.answers}
    assert notes["a"] == "the winner goes before it: rank TUNED over REFERENCE"
    assert notes["c"] == "no window of 7 tokens"
    assert selector.decisions == [decision]


def test_hooks_get_only_the_arguments_they_declare():
    def frugal():
        return offer("frugal")

    import sys

    catalog = catalog_of(plugin("a", None, lists=[f"{HOOK}:frugal"]))
    module = sys.modules[catalog.plugins[0].module]
    frugal.__name__ = HOOK
    from vllm_core.plugin import hookimpl

    setattr(module, HOOK, hookimpl(frugal))
    catalog.import_modules()
    assert Selector(catalog).choose(HOOK, QUERY).offer.name == "frugal"


def test_an_exception_counts_as_a_refusal():
    catalog = catalog_of(
        plugin("a", ValueError("libcudart.so.13"), lists=[f"{HOOK}:broken"]), plugin("b", offer("works"))
    )
    decision = Selector(catalog).choose(HOOK, QUERY)
    assert decision.offer.name == "works"
    assert [a.refusal for a in decision.answers] == ["raised ValueError: libcudart.so.13", ""]


def test_an_exception_of_what_was_named_is_raised_with_whose_it_is():
    catalog = catalog_of(
        plugin("a", ValueError("libcudart.so.13"), lists=[f"{HOOK}:broken"], version="0.2.1"),
        plugin("b", offer("works")),
    )
    with pytest.raises(PluginError) as error:
        Selector(catalog).choose(HOOK, QUERY, "broken", asked_by="--attention-backend")
    assert 'attention backend "broken" was asked for (--attention-backend) and cannot be used.' in message(error)
    assert "dist-a 0.2.1" in message(error)
    assert "ValueError: libcudart.so.13" in message(error)
    assert "works (dist-b 1.0) accepts the same engine" in message(error)


@pytest.mark.parametrize("nonsense", [7, True, "offer", [], lambda query: offer])
def test_an_answer_of_the_wrong_type_is_a_refusal_and_fatal_if_named(nonsense):
    catalog = catalog_of(plugin("a", nonsense, lists=[f"{HOOK}:odd"]), plugin("b", offer("works")))
    decision = Selector(catalog).choose(HOOK, QUERY)
    assert decision.offer.name == "works"
    assert "not Offer, Refusal or None" in decision.answers[0].refusal
    with pytest.raises(PluginError, match="not Offer, Refusal or None"):
        Selector(catalog).choose(HOOK, QUERY, "odd")


def test_an_offer_that_is_not_listed_is_refused_as_a_bug():
    catalog = catalog_of(plugin("a", offer("secret", Rank.TUNED), lists=[f"{HOOK}:open"]), plugin("b", offer("works")))
    decision = Selector(catalog).choose(HOOK, QUERY)
    assert decision.offer.name == "works"
    assert 'offered "secret", which its provides() does not list' in decision.answers[0].refusal


def test_what_is_named_is_used_even_if_its_rank_is_lower():
    catalog = catalog_of(plugin("a", offer("ref", Rank.REFERENCE)), plugin("b", offer("fast", Rank.TUNED)))
    decision = Selector(catalog).choose(HOOK, QUERY, "ref", asked_by="--attention-backend")
    assert (decision.offer.name, decision.why) == ("ref", "asked for (--attention-backend)")


def test_what_is_named_and_refuses_fails_with_its_reason_and_what_would_work():
    catalog = catalog_of(
        plugin("a", Refusal("needs head sizes below 256", name="picky", remedy="use float16")),
        plugin("b", offer("works")),
    )
    with pytest.raises(NoOffer) as error:
        Selector(catalog).choose(HOOK, QUERY, "picky")
    assert "needs head sizes below 256; use float16" in message(error)
    assert "dist-a 1.0" in message(error)
    assert "instead works (dist-b 1.0)" in message(error)


def test_what_is_named_and_silent_fails_too():
    catalog = catalog_of(plugin("a", None, lists=[f"{HOOK}:quiet"]))
    with pytest.raises(NoOffer, match="says that the question is not its own"):
        Selector(catalog).choose(HOOK, QUERY, "quiet")


def test_an_unknown_name_is_an_error_with_the_nearest_match():
    with pytest.raises(NoOffer, match='did you mean "triton"'):
        Selector(catalog_of(plugin("a", offer("triton")))).choose(HOOK, QUERY, "trition")


def test_when_nobody_offers_every_reason_is_shown():
    catalog = catalog_of(
        plugin("a", Refusal("too wide", name="x")), plugin("b", ValueError("bad"), lists=[f"{HOOK}:y"])
    )
    with pytest.raises(NoOffer) as error:
        Selector(catalog).choose(HOOK, QUERY)
    assert "x (dist-a 1.0): too wide" in message(error)
    assert "b (dist-b 1.0): raised ValueError: bad" in message(error)


def test_a_variant_that_the_model_needs_and_nobody_offers_is_named_with_the_package_to_install(monkeypatch):
    monkeypatch.setattr("vllm_core.plugins.index.lookup", lambda kind, name: [f"{name}-for-{kind}"])
    query = RopeQuery(rope_type="spiral", head_dim=8, params={}, max_position=9)
    with pytest.raises(NoOffer) as error:
        Selector(catalog_of()).choose("rope_variant", query)
    assert 'no active plugin offers the rope variant "spiral"' in message(error)
    assert "install pip install spiral-for-rope_variant" in message(error)


def test_within_a_rank_the_prefer_list_decides():
    plugins = [plugin("a", offer("x")), plugin("b", offer("y")), plugin("c", offer("z", Rank.REFERENCE))]
    policy = Policy(prefer={HOOK: ["z", "y", "x"]})
    decision = Selector(catalog_of(*plugins, policy=policy)).choose(HOOK, QUERY)
    assert (decision.offer.name, decision.why) == ("y", "earlier in prefer")
    decision = Selector(catalog_of(*plugins, policy=policy), prefer={HOOK: ["dist-a"]}).choose(HOOK, QUERY)
    assert (decision.offer.name, decision.why) == ("x", "named in prefer")


def test_equal_offers_are_an_error_that_names_both_and_the_line_that_settles_it():
    plugins = [plugin("a", offer("x")), plugin("b", offer("y"))]
    with pytest.raises(Ambiguous) as error:
        Selector(catalog_of(*plugins)).choose(HOOK, QUERY)
    assert "x (dist-a 1.0) and y (dist-b 1.0) are equally good" in message(error)
    assert f'prefer.{HOOK} = ["y"]' in message(error)
    settled = catalog_of(*plugins, policy=Policy(prefer={HOOK: ["y"]}))
    assert Selector(settled).choose(HOOK, QUERY).offer.name == "y"


def test_recorded_figures_decide_where_prefer_does_not_and_only_for_their_device_and_shape():
    catalog = catalog_of(plugin("a", offer("x")), plugin("b", offer("y")))
    shape = figures.shape_class(QUERY)
    figures.record(HOOK, "x", CPU, shape, 2e-3)
    with pytest.raises(Ambiguous):
        Selector(catalog, CPU).choose(HOOK, QUERY)  # y was never measured: it is not slow, it is unknown
    figures.record(HOOK, "y", CPU, shape, 1e-3)
    decision = Selector(catalog, CPU).choose(HOOK, {**QUERY, "heads": 16})  # 9 to 16 heads are one class
    assert (decision.offer.name, decision.why) == ("y", "recorded figures: 0.001 s against 0.002 s")
    for device, query in [(CPU, {**QUERY, "heads": 17}), (Device("cpu", name="another"), QUERY)]:
        with pytest.raises(Ambiguous):
            Selector(catalog, device).choose(HOOK, query)
    assert Selector(catalog, CPU, prefer={HOOK: ["x"]}).choose(HOOK, QUERY).offer.name == "x"


def test_at_the_lowest_rank_the_cores_own_offer_goes_before_a_plugins_unless_something_tells_them_apart():
    plugins = [plugin("a", offer("x", Rank.REFERENCE)), plugin("core", offer("own", Rank.REFERENCE))]
    decision = Selector(catalog_of(*plugins)).choose(HOOK, QUERY)
    assert (decision.offer.name, decision.why) == ("own", "the core's own before a plugin's of the lowest rank")
    assert Selector(catalog_of(*plugins), prefer={HOOK: ["x"]}).choose(HOOK, QUERY).offer.name == "x"
    shape = figures.shape_class(QUERY)
    for name, seconds in (("x", 1e-3), ("own", 2e-3)):
        figures.record(HOOK, name, CPU, shape, seconds)
    assert Selector(catalog_of(*plugins), CPU).choose(HOOK, QUERY).offer.name == "x"
    with pytest.raises(Ambiguous):
        Selector(catalog_of(*plugins, plugin("b", offer("y")), plugin("c", offer("z")))).choose(HOOK, QUERY)
    same = [plugin("a", offer("x")), plugin("core", offer("own"))]
    with pytest.raises(Ambiguous):
        Selector(catalog_of(*same)).choose(HOOK, QUERY)


def test_two_owners_of_one_name_are_an_error_only_when_it_is_asked_for():
    plugins = [plugin("a", offer("x")), plugin("b", offer("x", Rank.REFERENCE)), plugin("c", offer("y", Rank.TUNED))]
    assert Selector(catalog_of(*plugins)).choose(HOOK, QUERY).offer.name == "y"
    with pytest.raises(Ambiguous) as error:
        Selector(catalog_of(*plugins)).choose(HOOK, QUERY, "x")
    assert "dist-a 1.0 and by dist-b 1.0" in message(error)
    settled = catalog_of(*plugins, policy=Policy(prefer={HOOK: ["dist-b"]}))
    assert Selector(settled).choose(HOOK, QUERY, "x").provided.distribution == "dist-b"


def test_a_disabled_offering_is_not_chosen_and_says_where_it_was_disabled():
    plugins = [plugin("a", offer("x", Rank.TUNED)), plugin("b", offer("y"))]
    catalog = catalog_of(*plugins, policy=Policy(block=[f"{HOOK}:x"]))
    decision = Selector(catalog).choose(HOOK, QUERY)
    assert decision.offer.name == "y"
    assert decision.answers[0].refusal == "disabled by block in the Policy given"
    with pytest.raises(NoOffer, match="disabled by block"):
        Selector(catalog).choose(HOOK, QUERY, "x")


def test_the_plugin_that_serves_the_model_can_go_before_all_ranks():
    catalog = catalog_of(plugin("own", offer("x", Rank.REFERENCE)), plugin("b", offer("y", Rank.TUNED)))
    decision = Selector(catalog).choose(HOOK, QUERY, first="own")
    assert (decision.offer.name, decision.why) == ("x", "its plugin serves the model")


def test_choose_all_gives_every_offer_best_first():
    catalog = catalog_of(plugin("a", offer("x", Rank.REFERENCE)), plugin("b", offer("y")), plugin("c", Refusal("no")))
    assert [d.offer.name for d in Selector(catalog).choose_all(HOOK, QUERY)] == ["y", "x"]
    assert Selector(catalog).choose_all("metrics_sink", QUERY) == []


# Models


def query(*architectures, features=()):
    return ModelQuery(architectures=architectures, config={}, device=attrs.evolve(CPU, features=features))


GENERIC = {"name": "generic", "model": lambda query: offer("generic", Rank.PORTABLE), "lists": ["model:generic"]}
NATIVE = {"name": "native", "models": [ModelEntry("A", "m:A"), ModelEntry("B", "m:B", frozenset({"bf16"}))]}


def test_a_listed_architecture_goes_before_a_generic_offer():
    selector = Selector(catalog_of(GENERIC, NATIVE))
    decision = selector.choose_model(query("Z", "A"))
    assert (decision.hook, decision.offer.target, decision.provided.plugin) == ("model", "m:A", "native")
    assert selector.choose_model(query("Z")).offer.name == "generic"
    assert selector.choose_model(query("A"), "generic").offer.name == "generic"
    assert len(selector.decisions) == 3


def test_a_model_that_the_platform_cannot_run_goes_to_the_generic_offer_with_the_reason():
    selector = Selector(catalog_of(GENERIC, NATIVE))
    decision = selector.choose_model(query("B"))
    assert decision.offer.name == "generic"
    assert "needs bf16 of the platform" in decision.answers[0].refusal
    assert selector.choose_model(query("B", features=["bf16"])).offer.target == "m:B"
    with pytest.raises(NoOffer, match="needs bf16 of the platform"):
        Selector(catalog_of(NATIVE)).choose_model(query("B"))


# Sets


def test_a_set_agrees_on_formats_even_if_a_better_offer_must_go():
    catalog = catalog_of(
        plugin("a", offer("fast", Rank.TUNED, takes={"kv.page_layout": ["HND"]})),
        plugin("b", offer("slow", Rank.PORTABLE, takes={"kv.page_layout": ["NHD", "HND"]})),
        {"name": "c", "kv_cache_layout": offer("flat", gives={"kv.page_layout": "NHD"})},
    )
    attention, layout = Selector(catalog).choose_set([Question(HOOK, QUERY), Question("kv_cache_layout", QUERY)])
    assert (attention.offer.name, layout.offer.name) == ("slow", "flat")
    assert attention.why == "the best that is compatible with the other choices"
    assert (
        'does not fit: kv.page_layout: attention_backend "fast" takes HND, kv_cache_layout "flat" gives NHD'
        in attention.answers[0].note
    )
    with pytest.raises(NoOffer) as error:
        Selector(catalog).choose_set([Question(HOOK, QUERY, "fast"), Question("kv_cache_layout", QUERY)])
    assert 'attention_backend "fast" takes HND' in message(error)


def test_a_later_choice_fits_the_earlier_ones():
    catalog = catalog_of(
        plugin("a", offer("fast", Rank.TUNED, takes={"s": ["X"]})),
        plugin("b", offer("slow", Rank.PORTABLE, takes={"s": ["Y"]})),
        {"name": "c", "kv_cache_layout": offer("flat", gives={"s": "Y"})},
    )
    selector = Selector(catalog)
    selector.choose("kv_cache_layout", QUERY)
    assert selector.choose(HOOK, QUERY).offer.name == "slow"


def test_an_offer_that_needs_a_partner_is_taken_only_with_it():
    fast = plugin("a", offer("fast", Rank.TUNED, needs=["kv_cache_layout:flat"]))
    slow = plugin("b", offer("slow", Rank.REFERENCE))
    flat = {"name": "c", "kv_cache_layout": offer("flat", Rank.PORTABLE)}
    deep = {"name": "d", "kv_cache_layout": offer("deep", Rank.TUNED)}
    both = [Question(HOOK, QUERY), Question("kv_cache_layout", QUERY)]
    assert [d.offer.name for d in Selector(catalog_of(fast, slow, flat, deep)).choose_set(both)] == ["fast", "flat"]
    alone = Selector(catalog_of(fast, slow, flat)).choose(HOOK, QUERY)
    assert alone.offer.name == "slow"
    assert "needs kv_cache_layout:flat, which is not part of the set" in alone.answers[0].note


@pytest.mark.parametrize(
    ("layouts", "note"),
    [
        ([("flat", Rank.PORTABLE)], "is part of this set after all"),
        ([("flat", Rank.PORTABLE), ("deep", Rank.TUNED)], "is installed and was not chosen"),
        ([("deep", Rank.TUNED)], "is offered by nobody"),
    ],
)
def test_a_refusal_that_lacks_a_partner_is_explained_never_dropped(layouts, note):
    catalog = catalog_of(
        plugin("a", Refusal("cannot read pages", name="fast", lacks="kv_cache_layout:flat")),
        plugin("b", offer("slow")),
        *({"name": f"l-{n}", "kv_cache_layout": offer(n, r)} for n, r in layouts),
    )
    selector = Selector(catalog)
    selector.choose_set([Question(HOOK, QUERY), Question("kv_cache_layout", QUERY)])
    assert note in selector.decisions[0].answers[0].note
    assert note in format_explain(selector.decisions)


def test_a_choice_in_two_questions_is_ambiguous_only_if_nothing_orders_the_sets():
    plugins = [
        plugin("a", offer("x", gives={"s": "1"})),
        plugin("b", offer("y", gives={"s": "2"})),
        {"name": "c", "kv_cache_layout": offer("u", takes={"s": ["1"]})},
        {"name": "d", "kv_cache_layout": offer("v", takes={"s": ["2"]})},
    ]
    both = [Question(HOOK, QUERY), Question("kv_cache_layout", QUERY)]
    with pytest.raises(Ambiguous, match="attention backend: x"):
        Selector(catalog_of(*plugins)).choose_set(both)
    # A preference for either question settles both.
    chosen = Selector(catalog_of(*plugins), prefer={"kv_cache_layout": ["v"]}).choose_set(both)
    assert [d.offer.name for d in chosen] == ["y", "v"]


FORMATS = st.sampled_from(["A", "B", "C"])
SLOTS = st.dictionaries(st.sampled_from(["s", "t"]), st.lists(FORMATS, min_size=1, max_size=2, unique=True), max_size=2)
OFFERS = st.lists(st.tuples(st.sampled_from(list(Rank)), SLOTS, SLOTS), min_size=1, max_size=3)


@given(st.lists(OFFERS, min_size=1, max_size=3))
@settings(max_examples=60, deadline=None)
def test_the_chosen_set_is_compatible_and_no_compatible_set_has_higher_ranks(hooks):
    from itertools import product

    names = ["attention_backend", "kv_cache_layout", "expert_kernel"]
    offers = [
        [offer(f"{i}-{j}", rank, takes=takes, gives=gives) for j, (rank, takes, gives) in enumerate(rows)]
        for i, rows in enumerate(hooks)
    ]
    plugins = [{"name": f"p{o.name}", names[i]: o} for i, rows in enumerate(offers) for o in rows]
    prefer = {names[i]: [o.name for o in rows] for i, rows in enumerate(offers)}
    questions = [Question(names[i], QUERY) for i in range(len(offers))]
    possible = [s for s in product(*offers) if not conflict(zip(names, s, strict=False))]
    catalog = catalog_of(*plugins)
    if not possible:
        with pytest.raises(NoOffer, match="no compatible set"):
            Selector(catalog, prefer=prefer).choose_set(questions)
        return
    chosen = Selector(catalog, prefer=prefer).choose_set(questions)
    taken = tuple(d.offer for d in chosen)
    assert taken in possible
    assert sum(o.rank for o in taken) == max(sum(o.rank for o in s) for s in possible)
    again = Selector(catalog_of(*reversed(plugins)), prefer=prefer).choose_set(questions)
    assert tuple(d.offer for d in again) == taken  # the order of installation has no say
    for decision in chosen:
        assert all(a.note for a in decision.answers)


@given(st.lists(st.sampled_from(list(Rank)), min_size=1, max_size=5), st.permutations(range(5)))
@settings(max_examples=40, deadline=None)
def test_rank_goes_before_any_prefer_list(ranks, order):
    catalog = catalog_of(*(plugin(f"p{i}", offer(f"o{i}", rank)) for i, rank in enumerate(ranks)))
    decision = Selector(catalog, prefer={HOOK: [f"o{i}" for i in order]}).choose(HOOK, QUERY)
    best = [i for i, rank in enumerate(ranks) if rank == max(ranks)]
    assert decision.offer.name == f"o{min(best, key=list(order).index)}"


# Explaining


def test_explain_shows_who_offered_who_refused_and_why_and_who_won():
    catalog = catalog_of(
        plugin("a", offer("x", Rank.TUNED), version="3.1"),
        plugin("b", offer("y")),
        plugin("c", Refusal("no sinks", name="z", remedy="pip install more")),
        plugin("d", None),
    )
    selector = Selector(catalog, CPU)
    selector.choose(HOOK, query("A"))
    (choice,) = json.loads(json.dumps(explain(selector.decisions)))["choices"]
    assert choice["chosen"]["distribution"] == "dist-a"
    assert choice["chosen"]["version"] == "3.1"
    assert [a["answer"] for a in choice["answers"]] == ["offer", "offer", "refusal", "none"]
    text = format_explain(selector.decisions)
    for part in (
        "attention_backend  x      dist-a 3.1  rank TUNED over PORTABLE\n",
        "  chosen  x (dist-a 3.1), rank TUNED: rank TUNED over PORTABLE\n",
        "  offers  y (dist-b 1.0), rank PORTABLE - the winner goes before it: rank TUNED over PORTABLE\n",
        "  refuses z (dist-c 1.0): no sinks; pip install more\n",
        "  silent  d (the question is not theirs)",
    ):
        assert part in text, text


def test_explain_shows_what_offers_come_with_chosen_or_not():
    why = "the other engine is for newer devices, of compute capability 10.0 and later, and this one has 9.0"
    catalog = catalog_of(
        plugin("a", offer("x", Rank.TUNED, options={"engine": "plain", "newer is not used": why})),
        plugin("b", offer("y", options={"block_sizes": (16, 32), "nothing": ""})),
        plugin("c", offer("z")),
    )
    selector = Selector(catalog, CPU)
    selector.choose(HOOK, query("A"))
    text = format_explain(selector.decisions)
    assert f"rank TUNED over PORTABLE\n  with    engine: plain; newer is not used: {why}\n" in text
    assert "y (dist-b 1.0), rank PORTABLE" in text
    assert "\n  with    block_sizes: 16 32\n" in text
    assert text.count("  with ") == 2
    (choice,) = json.loads(json.dumps(explain(selector.decisions)))["choices"]
    assert choice["answers"][1]["options"] == {"block_sizes": [16, 32], "nothing": ""}
