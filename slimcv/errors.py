"""What a user can mend: one sentence that says what is wrong and one that says what to do next."""

import difflib
from collections.abc import Iterable, Iterator

FAULTS = (
    RuntimeError, ValueError, TypeError, AttributeError, LookupError, ArithmeticError, AssertionError,
    NameError, ImportError,
)  # fmt: skip
"""What code that is not ours may raise: a user's module, a network's forward method, or tracing it."""


class SlimcvError(Exception):
    """A fault in the input or the environment; the command line prints it and exits with 2."""

    exit_code = 2

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    @property
    def disk_fault(self) -> bool:
        """The operating system refused to read or write: no fault of a model, a step or a runtime."""
        return isinstance(self.__cause__, OSError)


class NotApplicable(SlimcvError):  # noqa: N818 -- reads as a fact about the step
    """A step has nothing to do on this model or machine; the session records it as skipped."""

    def __init__(self, message: str, hint: str = "the recipe goes on with its next step") -> None:
        super().__init__(message, hint)


class Rejected(SlimcvError):  # noqa: N818 -- reads as a fact about the step
    """A step's result failed the step's own proof (outputs differ, too little in INT8).

    It is recorded as rejected.
    """

    def __init__(self, message: str, hint: str = "the recipe goes on from the variant before") -> None:
        super().__init__(message, hint)


class Refused(SlimcvError):  # noqa: N818 -- reads as a fact about the file
    """A runtime does not load or run a file here: it is too old, not installed, or the file is none."""


def first_line(error: BaseException) -> str:
    """What an error says, in its first line that is not empty; its kind where it says nothing."""
    text = str(error).partition("WeightsUnpickler error:")[2] or str(error)
    return next(_lines(text), type(error).__name__)


def last_line(error: BaseException) -> str:
    """The last line of what an error says, for libraries that tell first where in their own code it arose."""
    return [type(error).__name__, *_lines(str(error))][-1]


def _lines(text: str) -> Iterator[str]:
    return (line.strip() for line in text.splitlines() if line.strip())


def nearest(word: str, choices: Iterable[str]) -> str:
    """The choice spelled most like `word` as a question for a hint, or all choices where none is near."""
    known = sorted(choices)
    matches = difflib.get_close_matches(word, known, n=3, cutoff=0.5)
    if matches:
        return "did you mean " + " or ".join(f"'{match}'" for match in matches) + "?"
    return "known: " + ", ".join(known)
