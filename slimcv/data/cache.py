"""What decoding found: a list of pictures is checked once, and decoded once for each size it is wanted in."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import IO

import numpy as np

from slimcv.data.decoding import quiet_pillow
from slimcv.data.folder import Keeping, writing
from slimcv.data.keeping import VERSION, find, make
from slimcv.data.losses import report, stand_ins
from slimcv.data.parallel import in_order
from slimcv.data.pixels import Pixels
from slimcv.data.rows import Fault, Size, decode_rows
from slimcv.data.sources import Sample
from slimcv.data.stored import Stored, file_bytes
from slimcv.data.stream import Stream

CHECK_SIZE = (8, 8, 3)
"""Pictures whose size is not known yet are checked by decoding them to this one: the cheapest full reading
of a JPEG, which is decoded at an eighth of its size."""

CHECKED_AT_ONCE = 32

log = logging.getLogger("slimcv")


class Decoded:
    """The pixels of a list of pictures at every size asked for so far, for as long as they are wanted.

    `whole` is a longer list and the positions of these pictures in it: what was decoded of it serves them.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        keeping: Keeping,
        *,
        whole: tuple[Decoded, np.ndarray] | None = None,
    ) -> None:
        self.samples = samples
        self._keeping = keeping
        self._whole = whole
        self._opened: dict[Size, Stored] = {}
        self._streams: dict[Size, Stream] = {}

    def faults(self, size: Size | None) -> dict[int, str]:
        """Which pictures cannot be decoded, by position, and why.

        The first time every picture is really decoded; at `size`, where that is known, and then the pixels
        are kept. Raises SlimcvError where the cache folder cannot be written.
        """
        found = self._remembered()
        if found is None and size is not None and self.opened(size) is None:
            made = make(self._keeping, self._key, self.samples, size, lasting=self._remember)
            if made is not None:
                self._opened[size] = self._stored(made.file, size)
                found = self._remembered() if made.faults is None else made.faults
        if found is None:
            found = self._checked()
            if self._keeping.folder is not None:
                # All but a full disk is a SlimcvError. Without the note they are checked again next time.
                with suppress(OSError), writing(self._keeping.folder):
                    self._remember(found)
        return {position: fault.reason for position, fault in found.items()}

    def pixels(self, size: Size) -> Pixels:
        """The pictures: decoded now, unless they are kept, or on demand, where there is no room for them.

        A file that is cut short, or of another version, is made anew. Pictures that became unreadable since
        they were checked are replaced by others of their class. Raises SlimcvError where these are too many,
        or the cache folder cannot be written.
        """
        return Pixels(self._rows(size), np.arange(len(self.samples)), size)

    def opened(self, size: Size) -> Stored | None:
        """All the pictures at this size, if they were decoded before and their file is intact."""
        if size not in self._opened:
            stored = self._part_of_whole(size)
            if stored is None:
                file = find(self._keeping, self._key, (len(self.samples), *size))
                stored = None if file is None else self._stored(file, size)
            if stored is None:
                return None
            self._opened[size] = stored
        return self._opened[size]

    def _rows(self, size: Size) -> Stored | Stream:
        if size in self._streams:
            return self._streams[size]
        if (stored := self.opened(size)) is None:
            made = make(self._keeping, self._key, self.samples, size, lasting=lambda faults: not faults)
            if made is None:
                self._tell_streaming(size)
                self._streams[size] = Stream(self.samples, size)
                return self._streams[size]
            stored = self._stored(made.file, size)
            if made.faults:
                stored = stored.part(self._mended(made.faults), instead=Stream(self.samples, size))
        self._opened[size] = stored
        return stored

    def _part_of_whole(self, size: Size) -> Stored | None:
        if self._whole is None:
            return None
        whole, rows = self._whole
        stored = whole.opened(size)
        return None if stored is None else stored.part(rows, instead=Stream(self.samples, size))

    def _stored(self, file: IO[bytes], size: Size) -> Stored:
        count = len(self.samples)
        return Stored(file, (count, *size), rows=np.arange(count), instead=Stream(self.samples, size))

    def _mended(self, lost: dict[int, Fault]) -> np.ndarray:
        """The row of each picture, for a lost one that of another."""
        instead = stand_ins(self.samples, lost)
        report(self.samples, lost, instead)
        rows = np.arange(len(self.samples))
        rows[list(instead)] = list(instead.values())
        return rows

    def _tell_streaming(self, size: Size) -> None:
        log.warning(
            "%s pictures at %dx%d need %.1f GB, and the cache may hold %.1f GB of a disk with little more: "
            "they are decoded anew whenever they are needed, which takes longer",
            f"{len(self.samples):,}",
            size[0],
            size[1],
            file_bytes((len(self.samples), *size)) / 1e9,
            self._keeping.limit_bytes / 1e9,
        )

    def _checked(self) -> dict[int, Fault]:
        log.info("checking %s pictures", f"{len(self.samples):,}")
        starts = range(0, len(self.samples), CHECKED_AT_ONCE)

        def check(start: int) -> dict[int, Fault]:
            wanted = self.samples[start : start + CHECKED_AT_ONCE]
            faults = decode_rows(wanted, np.empty((len(wanted), *CHECK_SIZE), dtype=np.uint8))
            return {start + at: fault for at, fault in faults.items()}

        with quiet_pillow():
            return {position: fault for part in in_order(check, starts) for position, fault in part.items()}

    @cached_property
    def _key(self) -> str:
        """A name for the list of pictures: from their files, with sizes and times, or from their contents."""
        digest = hashlib.sha256()
        for sample in self.samples:
            place = os.path.abspath(sample.picture) if isinstance(sample.picture, str) else ""  # noqa: PTH100
            digest.update(f"\0{place}\0{sample.identity}".encode("utf-8", "surrogateescape"))
        return digest.hexdigest()[:32]

    def _memory(self, folder: Path) -> Path:
        return folder / f"{self._key}-checked-{VERSION}.json"

    def _remember(self, faults: dict[int, Fault]) -> bool:
        """Write down which pictures are broken; False, and nothing, where some may be back the next time."""
        if any(fault.passing for fault in faults.values()):
            return False
        if self._keeping.folder is not None:
            path = self._memory(self._keeping.folder)
            reasons = {position: fault.reason for position, fault in faults.items()}
            partial = path.with_name(f"{path.name}.{os.getpid()}")
            try:
                partial.write_text(json.dumps({"count": len(self.samples), "broken": reasons}), "utf-8")
                partial.replace(path)
            finally:
                partial.unlink(missing_ok=True)
        return True

    def _remembered(self) -> dict[int, Fault] | None:
        if self._keeping.folder is None:
            return None
        try:
            read = json.loads(self._memory(self._keeping.folder).read_bytes())
            if read["count"] != len(self.samples):
                return None
            return {int(at): Fault(str(reason), passing=False) for at, reason in read["broken"].items()}
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return None
