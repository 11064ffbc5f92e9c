"""How many requests may be in flight: how the window changes with the replies."""

from casdk._calls.window import LIGHT_BYTES, Window
from hypothesis import given
from hypothesis import strategies as st


def test_a_window_does_not_grow_for_large_requests():
    window = Window(8, 32)
    for _ in range(30):
        window.answered(0.0, LIGHT_BYTES // 16)
    # One more than fits, and back again.
    assert window.size in (16, 17)
    window.answered(0.0, LIGHT_BYTES)
    assert window.size in (15, 16)


@given(st.lists(st.one_of(st.none(), st.tuples(st.floats(0, 1), st.integers(0, 2 * LIGHT_BYTES))), max_size=200))
def test_a_window_keeps_within_its_bounds(replies):
    grows, stays = Window(3, 9), Window(3)
    for reply in replies:
        for window in grows, stays:
            if reply is None:
                window.failed()
            else:
                window.answered(*reply)
        assert 3 <= grows.size <= 9
        assert stays.size == 3
