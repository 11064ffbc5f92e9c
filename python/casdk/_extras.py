"""Which of casdk's extras brings a library that is missing."""

from __future__ import annotations

__all__ = ["missing_extra"]


def missing_extra(what: str, extra: str, error: ImportError) -> ImportError:
    """Return the error of a part of casdk that cannot be imported, as one sentence that says what to install.

    Args:
        what: The part, e.g. ``casdk.server``.
        extra: The extra it needs.
        error: The error of its import; it is returned unchanged if it says this already, or is about a module of ours.
    """
    if error.name is None or error.name.partition(".")[0] == "casdk" or "pip install" in str(error):
        return error
    return ImportError(f'{what} needs {error.name}: pip install "casdk[{extra}]"', name=error.name)
