"""The options for sending crops in the place of images, and the lines about crops that a command prints at its end."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

from casdk.cli.exits import Exit, fail

__all__ = ["Fidelity", "Images", "Side", "options_of", "report_crops"]

Images = Annotated[
    Literal["original", "exact", "jpeg95", "webp90"],
    Parameter(
        help="Send images as they are, or crops of what the model looks at: exact ones, which give the same rows, or "
        "smaller ones with loss, which give nearly the same."
    ),
]
Side = Annotated[
    int | None, Parameter(help="The model's side in pixels, for crops; found out by default.", validator=Number(gte=1))
]
Fidelity = Annotated[
    float | None,
    Parameter(
        help="The smallest cosine that rows of crops with loss may have with those of exact ones; 0.999 by default.",
        validator=Number(gte=0, lte=1),
    ),
]


def options_of(images: str, image_size: int | None, min_fidelity: float | None) -> dict[str, Any]:
    """Return the options of a verb, without those that the command line leaves out."""
    options = {"images": images, "image_size": image_size, "min_fidelity": min_fidelity}
    return {name: value for name, value in options.items() if value is not None}


def report_crops(images: str, cropped: int, fidelity: float | None = None) -> None:
    """Print on standard error how images were sent that were to be sent as crops.

    Args:
        images: The form that was asked for.
        cropped: How many images were sent as crops.
        fidelity: The smallest cosine, if it was measured.
    """
    if images != "original" and not cropped:
        line = "no image was sent as a crop: all are smaller, or the server prepares images in a way of its own"
        fail(Exit.OK, line)
    if fidelity is not None:
        fail(Exit.OK, f"crops as {images}: the smallest cosine that was measured is {fidelity:.6f}")
