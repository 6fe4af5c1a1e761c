"""The one way a packed file is refused, whatever is wrong with it."""

from __future__ import annotations

import slimcv
from slimcv.errors import SlimcvError

_AGAIN = "copy it again, or pack the model again with slimcv pack"
_UPDATE = "update slimcv, or pack the model again with this version"


class Damaged(SlimcvError):  # noqa: N818 -- reads as a fact about the file
    """The bytes contradict the format: cut short, altered, or made to mislead."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"not a sound packed model: {reason}", _AGAIN)


class Newer(SlimcvError):  # noqa: N818 -- reads as a fact about the file
    """The file is sound and in a form that this reader does not know."""

    def __init__(self, form: str) -> None:
        super().__init__(f"a packed model {form}, which slimcv {slimcv.__version__} does not read", _UPDATE)


class TooLarge(SlimcvError):  # noqa: N818 -- reads as a fact about the file
    """The file says that it holds more than a reader accepts unasked."""
