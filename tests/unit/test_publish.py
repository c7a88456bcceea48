"""How ids are dealt into messages."""

from __future__ import annotations

import pytest

from esid.queue.publish import _chunks


@pytest.mark.parametrize("count", [1, 20, 21, 640, 641, 5000])
@pytest.mark.parametrize("size", [1, 2, 20, 1000])
def test_every_id_is_in_one_message_and_no_message_is_too_large(count: int, size: int) -> None:
    parts = list(_chunks(range(count), size))
    assert [key for part in parts for key in part] == list(range(count))
    assert all(0 < len(part) <= size for part in parts)


def test_the_first_messages_of_many_are_small() -> None:
    assert [len(part) for part in _chunks(range(3500), 20)][:34] == [3] * 32 + [20, 20]
    # Of few ids, or for a bulk route, they are whole
    assert [len(part) for part in _chunks(range(60), 20)] == [20, 20, 20]
    assert [len(part) for part in _chunks(range(3500), 1000)] == [1000, 1000, 1000, 500]
