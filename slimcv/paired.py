"""Two networks asked about the same pictures: by how much one is right more often, and how sure that is.

Only pictures that one of them gets right and the other wrong say anything about the difference; all here is
computed from their counts, without a numerical library. Where a function takes `lost` and `gained`, the first
counts the pictures that the original gets right and the variant wrong, the second those the other way round.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist

CONFIDENCE = 0.95
"""Of the intervals in reports, and of a gate that asks for none."""

POWER = 0.8
"""How often so many pictures as `pictures_needed` names would decide, if the shares stay as they are."""

_MOST_PICTURES = 10**9
_HALVINGS = 60
_MORE = 1.1


def p_value(lost: int, gained: int) -> float:
    """How likely a difference at least so large is, were both networks right equally often (two-sided).

    McNemar's test (Psychometrika 12, 1947) in its mid-p form, half of the observed outcome's own probability
    counted: the exact binomial test rejects far more rarely than it says (Fagerland, Lydersen and Laake, BMC
    Medical Research Methodology 13:91, 2013). 1 where no picture tells the two apart.
    """
    told_apart = lost + gained
    fewer = min(lost, gained)
    ways, below = 1, 0
    for count in range(fewer):
        below += ways
        ways = ways * (told_apart - count) // (count + 1)
    return min(1.0, (2 * below + ways) / (1 << told_apart))


def interval(lost: int, gained: int, pictures: int, *, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """The bounds of the difference `(gained - lost) / pictures`, between -1 and 1.

    Tango's score interval (Statistics in Medicine 17, 1998): all differences that his test would not reject.
    It keeps its level where few or no pictures tell the two apart, which is the rule among a network and its
    compressed form. Raises ValueError without a picture or with more answers than pictures.
    """
    if pictures < 1 or lost + gained > pictures:
        raise ValueError(f"{lost} lost and {gained} gained of {pictures} pictures")
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    found = (gained - lost) / pictures
    low = _crossing(lambda at: _score(at, lost, gained, pictures) - z, -1.0, found)
    high = _crossing(lambda at: _score(at, lost, gained, pictures) + z, found, 1.0)
    return low, high


def pictures_needed(
    lost: int, gained: int, pictures: int, *, bound: float, confidence: float = CONFIDENCE
) -> int | None:
    """So many pictures would show on which side of `bound` the difference lies; None where no number would.

    With the shares lost and gained as they were found (one picture more of each, so that none seen is not
    taken for none at all: Bonett and Price, Statistical Methods in Medical Research 21, 2012), that many
    pictures decide in four of five cases (Lu and Bean, Statistics in Medicine 14, 1995). That holds for large
    counts; where few are expected it is raised until those that are expected do decide.
    """
    down, up = (lost + 1) / (pictures + 2), (gained + 1) / (pictures + 2)
    away = up - down - bound
    normal = NormalDist()
    z = normal.inv_cdf((1 + confidence) / 2) + normal.inv_cdf(POWER)
    variance = down + up - (up - down) ** 2
    if variance * z**2 > _MOST_PICTURES * away**2:
        return None
    needed = max(1, math.ceil(variance * (z / away) ** 2))
    while not _decide(down, up, needed, bound=bound, confidence=confidence):
        needed = math.ceil(_MORE * needed)
        if needed > _MOST_PICTURES:
            return None
    return needed


def _decide(down: float, up: float, pictures: int, *, bound: float, confidence: float) -> bool:
    """Whether so many pictures do, with these shares of them lost and gained."""
    lost = round(down * pictures)
    gained = min(round(up * pictures), pictures - lost)
    low, high = interval(lost, gained, pictures, confidence=confidence)
    return not low < bound <= high


def fewest_pictures(bound: float, *, confidence: float = CONFIDENCE) -> int | None:
    """So many pictures show a loss of at most `bound` (0 to 1) where none tells the two networks apart.

    With fewer, only a variant that is right more often than the original can be shown to keep the bound.
    None for a bound of 0, which no number of pictures shows to be kept.
    """
    if bound <= 0:
        return None
    squared = NormalDist().inv_cdf((1 + confidence) / 2) ** 2
    return max(1, math.ceil(squared * (1 / bound - 1) * (1 - 1e-12)))


def _score(difference: float, lost: int, gained: int, pictures: int) -> float:
    """How many standard errors the found difference lies above a supposed one, falling as that grows.

    The error is that of the likeliest shares with the supposed difference (Tango 1998, equation 3).
    """
    linear = -lost - gained + (2 * pictures - gained + lost) * difference
    constant = -lost * difference * (1 - difference)
    likeliest = (math.sqrt(max(0.0, linear**2 - 8 * pictures * constant)) - linear) / (4 * pictures)
    variance = pictures * (2 * likeliest + difference * (1 - difference))
    excess = gained - lost - pictures * difference
    if variance <= 0:
        return math.copysign(math.inf, excess) if excess else 0.0
    return excess / math.sqrt(variance)


def _crossing(falling: Callable[[float], float], low: float, high: float) -> float:
    """Where a falling function changes its sign; an end where it does not."""
    if falling(low) <= 0:
        return low
    if falling(high) >= 0:
        return high
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if falling(middle) > 0:
            low = middle
        else:
            high = middle
    return (low + high) / 2
