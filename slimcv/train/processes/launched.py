"""What a launcher (torchrun, accelerate launch, mpirun) says about this process. Imports no torch."""

from __future__ import annotations

import os
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass

from slimcv.errors import SlimcvError

LOCALHOST, PORT = "127.0.0.1", "29500"
"""Where rank 0 is to be found on one machine if nobody says: the defaults of accelerate."""

_RANK = ("RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK")
_COUNT = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
_LOCAL_COUNT = (
    "LOCAL_WORLD_SIZE",
    "MPI_LOCALNRANKS",
    "OMPI_COMM_WORLD_LOCAL_SIZE",
    "MV2_COMM_WORLD_LOCAL_SIZE",
)
_LOCAL_RANK = ("LOCAL_RANK", "MPI_LOCALRANKID", "OMPI_COMM_WORLD_LOCAL_RANK", "MV2_COMM_WORLD_LOCAL_RANK")
"""The names that torchrun, Intel MPI, Open MPI and MVAPICH use."""

_MEETING = ("MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class Launch:
    """The process is number `rank` of `count`, of which `local_count` are on this machine.

    `address` and `port` are where the processes meet.
    """

    rank: int
    count: int
    local_count: int
    address: str
    port: str


def here(environment: Mapping[str, str] = os.environ) -> Launch | None:
    """None for a process that was started alone. Raises SlimcvError where the launcher said too little."""
    found = place(environment)
    if found is None:
        return None
    rank, count = found
    local_count = _number(environment, _LOCAL_COUNT) or 1
    address = environment.get("MASTER_ADDR") or (LOCALHOST if local_count == count else "")
    if not address:
        raise SlimcvError(
            f"{count} processes were started on several machines, but not told where to meet",
            "set MASTER_ADDR to the address of rank 0's machine, and MASTER_PORT to a free port there",
        )
    return Launch(rank, count, local_count, address, environment.get("MASTER_PORT") or PORT)


def place(environment: Mapping[str, str] = os.environ) -> tuple[int, int] | None:
    """Rank and count of the processes that were started together; None for one alone. Raises SlimcvError."""
    rank, count = _number(environment, _RANK), _number(environment, _COUNT)
    return None if rank is None or count is None or count < 2 else (rank, count)


def forget(environment: MutableMapping[str, str] = os.environ) -> None:
    """Take out what makes libraries, here and in children, wait for the other processes."""
    for name in (*_RANK, *_COUNT, *_LOCAL_COUNT, *_LOCAL_RANK, *_MEETING):
        environment.pop(name, None)


def left_alone(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether accelerate was asked for several processes and started this one only, without a rank.

    So it does where neither `--multi_gpu` nor a host file for mpirun is given.
    """
    asked = "ACCELERATE_USE_CPU" in environment and "MASTER_ADDR" in environment
    return asked and not any(name in environment for name in _RANK)


def _number(environment: Mapping[str, str], names: tuple[str, ...]) -> int | None:
    name = next((name for name in names if name in environment), None)
    if name is None:
        return None
    if not environment[name].isdecimal():
        raise SlimcvError(
            f"the environment variable {name} is '{environment[name]}', not a number", "unset it"
        )
    return int(environment[name])
