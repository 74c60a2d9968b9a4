import pytest

from vllm_core.engine.cache.fence import Fence
from vllm_core.engine.cache.pool import PagePool

A, B = b"a" * 32, b"b" * 32


def test_a_shared_page_is_free_only_after_its_last_reader():
    pool = PagePool(5, 1)
    (page,) = pool.take(1)
    pool.share(page)

    pool.release([page])
    assert pool.num_free == 3

    pool.release([page])
    assert pool.num_free == 4


def test_a_fresh_pool_hands_out_neighbours_and_never_page_zero():
    assert PagePool(9, 1).take(8) == [1, 2, 3, 4, 5, 6, 7, 8]


def test_returned_pages_are_handed_out_as_neighbours_again():
    pool = PagePool(20, 1)
    pool.release(pool.take(9)[::-1])
    assert pool.take(9) == list(range(1, 10))


def test_blank_pages_go_first_then_the_longest_unused_cached_one():
    pool = PagePool(4, 1)
    first, second, third = pool.take(3)
    pool.publish(0, A, first)
    pool.publish(0, B, second)
    pool.release([second, first, third])

    assert pool.take(1) == [third]
    assert pool.evictions == 0
    assert pool.take(1) == [second]
    assert pool.find(0, B) is None
    assert pool.find(0, A) == first
    assert pool.evictions == 1


def test_a_cached_page_that_is_found_is_not_evicted():
    pool = PagePool(3, 1)
    first, second = pool.take(2)
    pool.publish(0, A, first)
    pool.publish(0, B, second)
    pool.release([first, second])
    pool.share(first)

    assert pool.take(1) == [second]
    assert pool.num_free == 0
    pool.check()


def test_the_second_page_of_the_same_content_is_not_found_and_goes_back_blank():
    pool = PagePool(3, 1)
    first, second = pool.take(2)
    pool.publish(0, A, first)
    pool.publish(0, A, second)

    pool.release([second])
    assert pool.find(0, A) == first
    assert pool.take(1) == [second]


def test_the_same_name_in_two_groups_means_two_pages():
    pool = PagePool(3, 2)
    first, second = pool.take(2)
    pool.publish(0, A, first)
    pool.publish(1, A, second)
    assert (pool.find(0, A), pool.find(1, A)) == (first, second)


def test_forgetting_everything_keeps_owners_and_blanks_the_rest():
    pool = PagePool(4, 1)
    first, second = pool.take(2)
    pool.publish(0, A, first)
    pool.publish(0, B, second)
    pool.release([first])

    pool.forget_all()
    assert pool.find(0, A) is None
    assert pool.find(0, B) is None
    assert pool.num_free == 2
    pool.check()


def test_more_than_there_is_or_twice_the_same_is_an_error():
    pool = PagePool(3, 1)
    pages = pool.take(2)
    with pytest.raises(RuntimeError, match="only 0 are free"):
        pool.take(1)
    pool.release(pages)
    with pytest.raises(RuntimeError, match="nobody owns it"):
        pool.release(pages)
    with pytest.raises(ValueError, match="none to give"):
        PagePool(1, 1)


def test_a_page_returns_when_the_last_step_that_may_touch_it_has_retired():
    pool = PagePool(3, 1)
    fence = Fence(pool)
    pages = pool.take(2)
    fence.launch(1)
    fence.launch(2)

    fence.release(pages, step=2)
    fence.retire(1)
    assert (pool.num_free, fence.num_waiting) == (0, 2)

    fence.retire(2)
    assert (pool.num_free, fence.num_waiting) == (2, 0)


def test_steps_are_launched_upwards_and_retire_after_their_launch_and_once():
    fence = Fence(PagePool(3, 1))
    fence.launch(4)
    with pytest.raises(ValueError, match="steps count upwards"):
        fence.launch(4)
    with pytest.raises(ValueError, match="cannot retire"):
        fence.retire(5)
    fence.retire(4)
    with pytest.raises(ValueError, match="cannot retire"):
        fence.retire(4)
