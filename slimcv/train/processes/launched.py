"""What a launcher (torchrun, accelerate launch, mpirun) says about this process. Imports no torch."""

from __future__ import annotations

import os
from collections.abc import Mapping
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
"""The names that torchrun, Intel MPI, Open MPI and MVAPICH use."""


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
    rank, count = _number(environment, _RANK), _number(environment, _COUNT)
    if rank is None or count is None or count < 2:
        return None
    local_count = _number(environment, _LOCAL_COUNT) or 1
    address = environment.get("MASTER_ADDR") or (LOCALHOST if local_count == count else "")
    if not address:
        raise SlimcvError(
            f"{count} processes were started on several machines, but not told where to meet",
            "set MASTER_ADDR to the address of rank 0's machine, and MASTER_PORT to a free port there",
        )
    return Launch(rank, count, local_count, address, environment.get("MASTER_PORT") or PORT)


def _number(environment: Mapping[str, str], names: tuple[str, ...]) -> int | None:
    name = next((name for name in names if name in environment), None)
    if name is None:
        return None
    if not environment[name].isdecimal():
        raise SlimcvError(
            f"the environment variable {name} is '{environment[name]}', not a number", "unset it"
        )
    return int(environment[name])
