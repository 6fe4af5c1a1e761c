"""The allocator is tuned where the C library can, and left as it is, with a word, where it cannot."""

import ctypes

import pytest

from slimcv.measure import allocator, environment


@pytest.fixture(params=[True, False])
def tunable(request, monkeypatch):
    """Whether the C library has mallopt, as glibc, or none, as musl."""

    class Library:
        if request.param:
            mallopt = staticmethod(lambda *setting: len(setting) // 2)

    real = ctypes.CDLL
    monkeypatch.setattr(
        ctypes, "CDLL", lambda name, *more, **how: Library() if name is None else real(name, *more, **how)
    )
    return request.param


def test_a_c_library_that_cannot_be_tuned_is_left_as_it_is_and_said_so(tunable, caplog):
    assert allocator.tune() is allocator.tunable() is tunable
    assert environment.describe().as_json()["allocator_tunable"] is tunable
    allocator.tune_or_tell()
    assert caplog.messages == ([] if tunable else [allocator.UNTUNED])
