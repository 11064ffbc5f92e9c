"""docarray's documents, where one has to be made by hand; calls take them and give them back by themselves."""

from casdk._docarray import to_docarray, to_document

__all__ = ["to_docarray", "to_document"]
