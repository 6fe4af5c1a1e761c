"""Weights that are not needed for a while, in mapped files instead of memory."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path

import torch
from torch import nn

LARGE = 2**20
"""Bytes; what is smaller stays where it is."""

log = logging.getLogger("slimcv")


def rest(model: nn.Module, folder: Path) -> int:
    """Put the large tensors of `model` into files in `folder`, in place; how many bytes that were.

    The model goes on as before: the system reads a page of a file when it is touched, and may drop it again.
    The files have no names any more when this returns, and vanish with the tensors. Where the disk refuses
    them the tensors stay in memory.
    """
    moved = 0
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            if tensor.nbytes < LARGE or not tensor.is_contiguous():
                continue
            try:
                with tempfile.NamedTemporaryFile(prefix=".resting-", dir=folder) as file:
                    tensor.detach().view(-1).view(torch.uint8).numpy().tofile(file)
                    file.flush()
                    mapped = torch.from_file(file.name, shared=False, size=tensor.numel(), dtype=tensor.dtype)
            except OSError as error:
                log.debug("weights stay in memory: %s", error)
                return moved
            tensor.data = mapped.view(tensor.shape)
            moved += tensor.nbytes
    return moved
