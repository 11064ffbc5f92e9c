"""The document model: `Document`, `NamedScore`, `DocumentArray`; and docarray's, which are taken and given back."""

from casdk.documents.model import Document, DocumentArray, NamedScore

__all__ = ["Document", "DocumentArray", "NamedScore"]
