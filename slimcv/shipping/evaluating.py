"""How right each candidate is on val/, through the runtime that would serve it; each is asked once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from slimcv.bakeoff import FLOATS, form_of, runtime_of
from slimcv.gate import Gate, judge
from slimcv.measure import int8_share, size
from slimcv.measure.variant import Answers, measurement
from slimcv.results import Measurement
from slimcv.shipping import answering

if TYPE_CHECKING:
    from slimcv.step import Context, Variant


class Evaluations:
    """Figures of candidates by name, and what each said; `gate` is judged against `original`."""

    def __init__(
        self,
        variant: Variant,
        in_floats: Variant | None,
        *,
        context: Context,
        gate: Gate,
        original: Measurement,
        original_answers: Answers,
        macs: int,
    ) -> None:
        self.said: dict[str, Answers] = {}
        self._variant = variant
        self._in_floats = in_floats
        self._context = context
        self._gate = gate
        self._original = original
        self._original_answers = original_answers
        self._macs = macs
        self._found: dict[str, Measurement] = {}

    def variant_of(self, name: str) -> Variant:
        """The network in a candidate's file: of a quantised variant's floats the one it was made from."""
        floats = self._variant.precision == "int8" and form_of(name) in FLOATS
        return self._in_floats if floats and self._in_floats is not None else self._variant

    def of(self, name: str, path: Path) -> Measurement:
        """The figures of the candidate `name`, whose file is `path`, without times."""
        if name not in self._found:
            variant, runtime = self.variant_of(name), runtime_of(name)
            self.said[name] = answering.answers_of(path, runtime, variant, self._context)
            found = measurement(
                variant,
                runtime=runtime,
                size_bytes=size.artifact_bytes(path),
                threads=self._context.threads,
                macs=self._macs,
                given=self.said[name],
                original=self._original_answers,
            )
            self._found[name] = replace(found, int8_mac_share=self._int8_share(name, path, variant))
        return self._found[name]

    @staticmethod
    def _int8_share(name: str, path: Path, variant: Variant) -> float | None:
        """That of the variant's own graph, of another quantiser's what its file says."""
        form = form_of(name)
        if not form:
            return variant.int8_mac_share
        return None if form in FLOATS else int8_share.of_file(path)

    def accurate(self, name: str, path: Path) -> bool:
        """Whether the candidate meets the gate."""
        return judge(self._gate, candidate=self.of(name, path), original=self._original).accepted

    def accurate_forms(self, files: Mapping[str, Path], *, meant: str) -> set[str]:
        """Forms of which one file at least meets the gate.

        Files of one form were proved alike when they were made, as closely as their precision allows: where
        the one `meant` is right, it speaks for its form. Else the others are asked, which may compute in
        another.
        """
        found: set[str] = set()
        for name in dict.fromkeys((meant, *self._found, *files)):
            if name in files and form_of(name) not in found and self.accurate(name, files[name]):
                found.add(form_of(name))
        return found

    def missing_before_the_first_right(self, names: Sequence[str], files: Mapping[str, Path]) -> list[str]:
        """Of `names`, the fastest first, those before the first that meets the gate; none if none does."""
        for at, name in enumerate(names):
            if self.accurate(name, files[name]):
                return list(names[:at])
        return []
