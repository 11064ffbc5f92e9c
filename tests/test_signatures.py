"""The signatures and docstrings of the verbs show their options, each described in one place."""

import inspect
from typing import TypedDict

import pytest
from casdk._calls.options import Options
from casdk._calls.signatures import takes


class Some(TypedDict, total=False):
    """Some options.

    Attributes:
        batch_size: Items in a request, which
            may go on in a second line.
        dedupe: Whether equal items are sent once.
    """

    batch_size: int | None
    dedupe: bool


class More(Some, total=False):
    """More of them.

    Attributes:
        timeout: Seconds.
    """

    timeout: float | None


def described(*kinds, **how):
    @takes(*kinds, **how)
    def verb(self, content: list[str], **options: object) -> None:
        """Do something.

        Args:
            content: Items.
            **options: As they are
                told elsewhere.

        Returns:
            Nothing.
        """

    return verb


def test_options_stand_in_the_signature_with_their_defaults():
    parameters = inspect.signature(described(Some, More)).parameters
    assert list(parameters) == ["self", "content", "batch_size", "dedupe", "timeout"]
    defaults = {name: parameter.default for name, parameter in parameters.items() if name in Options.__struct_fields__}
    made = Options()
    assert defaults == {name: getattr(made, name) for name in ("batch_size", "dedupe", "timeout")}
    kinds = {parameters[name].kind for name in defaults}
    assert kinds == {inspect.Parameter.KEYWORD_ONLY}


def test_options_stand_in_the_docstring_in_their_place():
    assert described(Some, More).__doc__ == (
        "Do something.\n\n"
        "Args:\n"
        "    content: Items.\n"
        "    batch_size: Items in a request, which\n"
        "        may go on in a second line.\n"
        "    dedupe: Whether equal items are sent once.\n"
        "    timeout: Seconds.\n\n"
        "Returns:\n"
        "    Nothing."
    )


def test_what_a_verb_does_not_take_is_in_neither():
    verb = described(Some, without=("dedupe",))
    assert list(inspect.signature(verb).parameters) == ["self", "content", "batch_size"]
    assert "dedupe" not in verb.__doc__


def test_an_option_without_a_default_is_a_mistake_of_whoever_wrote_it():
    class Wrong(TypedDict):
        nowhere: int

    with pytest.raises(KeyError, match="nowhere"):
        described(Wrong)
