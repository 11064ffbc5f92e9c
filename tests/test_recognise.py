"""docarray's documents are recognised by the names of their classes, without an import and without their code."""

import sys
from types import ModuleType

import pytest
from casdk import Document
from casdk.documents.recognise import hold_documents, is_array, origins, recognise


class Meta(type):
    """A caller's metaclass, which answers for its classes what it likes."""

    def __getattribute__(cls, name):
        if name in ("__mro__", "__module__", "__name__"):
            raise AssertionError("the metaclass was asked")
        return super().__getattribute__(name)


def made(name, module, base=object, **members):
    kind = type(base)(name, (base,), {"__module__": module, **members})
    return kind()


@pytest.fixture
def imported(monkeypatch):
    """docarray has been imported by somebody."""
    monkeypatch.setitem(sys.modules, "docarray", ModuleType("docarray"))


@pytest.mark.parametrize("module", ["docarray.document", "docarray.base_doc.doc"])
def test_a_document_of_either_docarray(imported, module):
    theirs = made("Document", module)
    assert recognise(theirs)
    assert recognise(made("Mine", "mine", type(theirs)))
    assert hold_documents(["a", 7, theirs])


def test_what_is_none(imported):
    others = [Document(), "a", made("Document", "mine"), made("Document", 7), made("Document", "docarray.typing")]
    assert not any(map(recognise, others))
    assert not hold_documents(others)


def test_there_is_none_where_docarray_was_never_imported(monkeypatch):
    monkeypatch.delitem(sys.modules, "docarray", raising=False)
    assert not recognise(made("Document", "docarray.document"))
    assert not hold_documents([made("Document", "docarray.document")])
    assert not is_array(made("DocumentArray", "docarray.array.document"))


@pytest.mark.parametrize("name", ["DocumentArray", "DocList", "DocVec"])
def test_an_array(imported, name):
    array = made(name, "docarray.array.any")
    assert is_array(array)
    assert is_array(made("Mine", "mine", type(array)))
    assert not is_array(made(name, "mine"))
    assert not is_array(made("Document", "docarray.document"))


def test_no_code_of_the_class_is_run(imported):
    class Odd(metaclass=Meta):
        @property
        def __class__(self):
            raise AssertionError("the item was asked")

    assert list(origins(Odd)) == [(__name__, "Odd"), ("builtins", "object")]
    assert not recognise(Odd())
    assert not is_array(Odd())
