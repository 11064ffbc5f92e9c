"""The document model: `Document`, `NamedScore`, `DocumentArray`; docarray's documents are read and written back."""

from casdk.documents.model import Document, DocumentArray, NamedScore

__all__ = ["Document", "DocumentArray", "NamedScore"]
