"""The document model: `Document`, `NamedScore`, `DocumentArray`; docarray's documents are read and written back."""

from casdk.documents.fields import NamedScore
from casdk.documents.model import Document, DocumentArray

__all__ = ["Document", "DocumentArray", "NamedScore"]
