"""Arrivals, data sets, the parser of answers, the plot."""

import asyncio
import json
import random
import statistics

import pytest
from vllm_plugin_server.bench import plot
from vllm_plugin_server.bench.arrivals import arrivals, ramp_arrivals
from vllm_plugin_server.bench.figures import percentile
from vllm_plugin_server.bench.http_parser import BadAnswer, Parser
from vllm_plugin_server.bench.random_data import length_range, prefix_repetition, random_prompts
from vllm_plugin_server.bench.sse import Events
from vllm_plugin_server.bench.text_data import custom, sharegpt, sonnet
from vllm_plugin_server.bench.tokens import RawTokens


def gaps(times):
    return [b - a for a, b in zip([0.0, *times], times, strict=False)]


def test_arrivals_offer_their_rate():
    for burstiness in (0.5, 1.0, 4.0):
        assert arrivals(1000, 10, burstiness, random.Random(0))[-1] == pytest.approx(100)
    assert arrivals(3, float("inf"), 1, random.Random(0)) == [0, 0, 0]


def test_burstiness_is_the_spread_of_gaps():
    def spread(burstiness):
        found = gaps(arrivals(4000, 10, burstiness, random.Random(0)))
        return statistics.pstdev(found) / statistics.fmean(found)

    assert spread(1.0) == pytest.approx(1, rel=0.1)  # of an exponential distribution
    assert spread(4.0) == pytest.approx(0.5, rel=0.1)
    assert spread(0.25) == pytest.approx(2, rel=0.15)
    assert spread(float("inf")) == pytest.approx(0, abs=1e-9)


def test_a_ramp_grows():
    for strategy in ("linear", "exponential"):
        found = gaps(ramp_arrivals(101, strategy, 1, 10, float("inf"), random.Random(0)))
        assert (found[0], found[-1]) == (pytest.approx(1), pytest.approx(0.1))
    assert found[50] == pytest.approx(10**-0.5)
    with pytest.raises(ValueError, match="never begins"):
        ramp_arrivals(3, "linear", 0, 1, 1, random.Random(0))


class Letters:
    """A letter is a token."""

    name, ids = "letters", list(range(97, 123))

    async def encode(self, text):
        return [ord(c) for c in text]

    async def decode(self, ids):
        return "".join(map(chr, ids))


def test_random_prompts_have_their_lengths():
    made = asyncio.run(random_prompts(Letters(), random.Random(0), count=200, input_len=100, output_len=10,
                                      range_ratio=0.5, prefix_len=7))  # fmt: skip
    assert {s.prompt[:7] for s in made} == {made[0].prompt[:7]}
    assert len({s.prompt for s in made}) == 200
    lengths = [s.prompt_len - 7 for s in made]
    assert (min(lengths), max(lengths)) == (pytest.approx(50, abs=4), pytest.approx(150, abs=4))
    assert {s.output_len for s in made} == set(range(5, 16))
    assert length_range(10, 0) == (10, 10)


def test_the_seed_gives_the_same_prompts_again():
    def make(seed):
        return asyncio.run(random_prompts(Letters(), random.Random(seed), count=5, input_len=9, output_len=2))

    assert make(1) == make(1)
    assert make(1) != make(2)


def test_prefixes_are_repeated():
    made = asyncio.run(prefix_repetition(RawTokens(1000), random.Random(0), count=20, prefix_len=8, suffix_len=4,
                                         num_prefixes=4, output_len=2))  # fmt: skip
    assert len({tuple(s.prompt[:8]) for s in made}) == 4
    assert len({tuple(s.prompt[8:]) for s in made}) == 20


def test_sharegpt_takes_questions_of_a_fitting_length(tmp_path):
    path = tmp_path / "talks.json"
    talk = [("good question", "an answer"), ("x", "too short"), ("q" * 2000, "too long"), ("another one", "yes!")]
    path.write_text(json.dumps([{"conversations": [{"value": q}, {"value": a}]} for q, a in talk] + [{"id": 1}, 3]))
    made = asyncio.run(sharegpt(Letters(), random.Random(0), path=str(path), count=10, output_len=None))
    assert {(s.prompt, s.output_len) for s in made} == {("good question", 9), ("another one", 4)}
    assert len(made) == 10
    path.write_text('{"a": 1}')
    with pytest.raises(ValueError, match="holds no list"):
        asyncio.run(sharegpt(Letters(), random.Random(0), path=str(path), count=1, output_len=None))


def test_sonnets_share_their_beginning():
    made = asyncio.run(sonnet(Letters(), random.Random(0), path=None, count=5, input_len=800, prefix_len=300,
                              output_len=9))  # fmt: skip
    assert len({s.prompt[:200] for s in made}) == 1
    assert len({s.prompt for s in made}) == 5
    assert all(700 < s.prompt_len < 900 for s in made)


def test_custom_lines_say_their_lengths(tmp_path):
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"prompt": "abc", "output_tokens": 5}\n\n{"prompt": "de", "output_tokens": 6}\n')
    made = asyncio.run(custom(Letters(), random.Random(0), path=str(path), count=2, output_len=None))
    assert {(s.prompt_len, s.output_len) for s in made} == {(3, 5), (2, 6)}
    path.write_text('{"prompt": 1}\n')
    with pytest.raises(ValueError, match="line 1"):
        asyncio.run(custom(Letters(), random.Random(0), path=str(path), count=2, output_len=None))


ANSWER = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n7;x=1\r\n, world\r\n0\r\nA: b\r\n\r\n"


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 1000])
def test_an_answer_may_come_in_any_pieces(size):
    for answer, body in (
        (ANSWER, b"hello, world"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", b"abc"),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No\r\n\r\n", b""),
    ):
        got = []
        parser = Parser(got.append)
        for i in range(0, len(answer), size):
            parser.feed(answer[i : i + size])
        assert parser.done
        assert b"".join(got) == body


def test_an_answer_without_a_length_ends_with_its_connection():
    got = []
    parser = Parser(got.append)
    parser.feed(b"HTTP/1.0 200 OK\r\n\r\nabc")
    assert not parser.done
    parser.closed()
    assert parser.done
    assert got == [b"abc"]


@pytest.mark.parametrize("answer", [b"SSH-2.0\r\n\r\n", b"HTTP/1.1 OK\r\n\r\n",
                                    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"])  # fmt: skip
def test_what_is_no_answer_is_refused(answer):
    with pytest.raises(BadAnswer):
        Parser(lambda piece: None).feed(answer)


def test_an_answer_that_is_cut_off_is_told():
    parser = Parser(lambda piece: None)
    parser.feed(ANSWER[:-3])
    with pytest.raises(BadAnswer, match="middle"):
        parser.closed()


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_events_may_come_in_any_pieces(size):
    text = b": hello\n\ndata: a\n\ndata: b\ndata: c\n\r\nevent: x\r\ndata:d\r\n\r\ndata: e"
    events = Events()
    found = [data for i in range(0, len(text), size) for data in events.feed(text[i : i + size])]
    assert found == [b"a", b"b\nc", b"d"]


def test_percentiles_lie_between_neighbours():
    assert percentile([1, 2, 3, 4], 50) == 2.5
    assert percentile([5], 99) == 5
    assert percentile([], 50) == 0


@pytest.mark.parametrize(("most", "last", "step"), [(1, 1, 0.2), (0.93, 1.0, 0.2), (1234, 1500, 500), (0, 1, 1)])
def test_axes_have_round_numbers(most, last, step):
    found = plot.ticks(most)
    assert found[-1] == pytest.approx(last)
    assert found[1] == pytest.approx(step)


def test_names_of_lines_do_not_cover_each_other(tmp_path):
    panel = plot.Panel("x", [1.0, 2.0], [("median", [5.0, 6.0]), ("p99", [5.0, 6.0])], ["a", "b"])
    plot.draw(str(tmp_path / "a.html"), "t <b>", [panel])
    text = (tmp_path / "a.html").read_text()
    assert "t &lt;b&gt;" in text
    ends = [part.split('y="')[1].split('"')[0] for part in text.split("<text") if ">median" in part or ">p99" in part]
    assert abs(float(ends[0]) - float(ends[1])) >= 14
