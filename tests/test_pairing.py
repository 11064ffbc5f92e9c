"""A connection is used again only for a request whose reply cannot be mistaken for a late one."""

from casdk._transport.channels.pairing import REMEMBERED_IDS, Asked, Pairing

REQUEST_ID = "0123456789abcdef0123456789abcdef"


def test_a_reply_is_told_from_earlier_ones():
    pairing = Pairing()
    mine = Asked(REQUEST_ID, "mine")
    assert pairing.can_pair(Asked(REQUEST_ID, None))
    assert pairing.can_pair(mine)
    pairing.note_answer(mine, 7.0)
    assert (pairing.used, pairing.answered_at) == (True, 7.0)
    assert not pairing.can_pair(mine)
    assert not pairing.can_pair(Asked(REQUEST_ID, None))
    assert pairing.can_pair(Asked(REQUEST_ID, "another"))


def test_ids_are_remembered_up_to_a_number():
    pairing = Pairing()
    for number in range(REMEMBERED_IDS):
        assert pairing.can_pair(Asked(REQUEST_ID, str(number)))
        pairing.note_answer(Asked(REQUEST_ID, str(number)), 0.0)
    assert not pairing.can_pair(Asked(REQUEST_ID, "one more"))
