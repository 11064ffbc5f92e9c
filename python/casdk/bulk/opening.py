"""How a `Run` opens its target: it continues the manifest that is there, begins a new one, or refuses the target."""

from __future__ import annotations

from casdk.bulk.manifest import Manifest
from casdk.bulk.requests import Requests
from casdk.bulk.targets import Target
from casdk.errors import BulkError

__all__ = ["open_manifest"]


def open_manifest(
    target: Target, new: Manifest, requests: Requests, *, resume: bool, overwrite: bool, update: bool
) -> Manifest:
    """Return the manifest that a run continues from; for a new target, write its first manifest.

    Args:
        target: The target, locked.
        new: The manifest of a new target.
        requests: Decides, by the manifest, whether to search for the size of requests.
        resume: Whether to continue a target that was begun.
        overwrite: Whether to begin again.
        update: Whether the rows may be in another order than the input.

    Raises:
        BulkError: The target must not be continued.
    """
    if overwrite:
        target.clear()
    elif (manifest := target.read_manifest()) is not None:
        manifest.check_settings(requests.begin(new.settings, manifest), target.name)
        if not update:
            manifest.check_order(target.name)
        if not resume and not manifest.finished:
            raise BulkError(f"{target.name} was begun before: resume=True goes on, overwrite=True begins again")
        manifest = target.settle(manifest)
        target.check(manifest)
        if manifest.finished:
            target.complete(manifest)
        return target.begin_update(manifest) if update and manifest.finished else manifest
    else:
        for path in target.foreign_files():
            raise BulkError(f"{path} is there, and of no bulk run: give another target, or overwrite=True to lose it")
    requests.begin(new.settings, None)
    target.write_manifest(new)
    return new
