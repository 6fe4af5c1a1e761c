"""Whole numbers as LEB128 varints: seven bits a byte, the lowest first, the top bit on all but the last."""

from __future__ import annotations

from slimcv.packed.damage import Damaged

_LONGEST = 10


def varint(value: int) -> bytes:
    """The bytes of a number from 0 to 2**64 - 1."""
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)


class Numbers:
    """Reads numbers one after the other. Raises Damaged where there is no further one."""

    def __init__(self, content: bytes) -> None:
        self._content, self._at = content, 0

    @property
    def left(self) -> int:
        """Bytes that were not read yet."""
        return len(self._content) - self._at

    def byte(self) -> int:
        """The next byte."""
        if not self.left:
            raise Damaged("its directory ends early")
        self._at += 1
        return self._content[self._at - 1]

    def next(self) -> int:
        """The next varint."""
        value = 0
        for place in range(_LONGEST):
            byte = self.byte()
            value |= (byte & 0x7F) << 7 * place
            if byte < 0x80:
                return value
        raise Damaged("its directory has a number of more than ten bytes")
