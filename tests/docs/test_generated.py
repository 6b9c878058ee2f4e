"""``docs/errors.md`` is what the code says."""

from tests.errors import PAGE, messages, page


def test_the_page_is_in_step_with_the_code():
    assert PAGE.read_text(encoding="utf-8") == page(), "run python -m tests.errors"


def test_messages_keep_their_words_and_lose_their_values():
    source = 'raise InputError(f"data.x={value}: no such {kind[0]}; choose " + "another") from error'
    assert list(messages(source)) == ["data.x=…: no such …; choose another"]
    assert (
        list(messages("raise InputError(line)\nraise InputError(f'{a}: {b}')\nraise ValueError('x: y')"))
        == []
    )
    returned = "def line():\n    return f'disk {number}: is full'"
    assert list(messages(returned, returned=True)) == ["disk …: is full"]
    assert list(messages(returned)) == []
