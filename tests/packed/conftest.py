"""A small network as the project itself exports it, in float32 and INT8, and ways to forge packed files."""

import dataclasses
import io
import struct
import zlib

import onnx
import pytest
import torch
from torch import nn

from slimcv import data as datasets
from slimcv import runtimes
from slimcv.models import capture
from slimcv.packed import coders, header, packing
from slimcv.packed.reading import Reader
from slimcv.step import Context, InputSpec, Variant
from slimcv.steps.quantize_int8 import QuantizeInt8

INPUT = InputSpec(3, 16, 16)


class Small(nn.Module):
    """Two convolutions, the second around a residual connection, and a dense layer."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 32, 3, padding=1)
        self.second = nn.Conv2d(32, 32, 3, padding=1)
        self.head = nn.Linear(32, 5)

    def forward(self, x):
        x = torch.relu(self.first(x))
        x = x + torch.relu(self.second(x))
        return self.head(x.mean((2, 3)))


@pytest.fixture(scope="session")
def float_model(tmp_path_factory):
    torch.manual_seed(0)
    variant = Variant(capture.capture(Small(), INPUT), INPUT, details={"input_format": runtimes.PIXELS})
    return runtimes.write(variant, "onnxruntime", tmp_path_factory.mktemp("float"))


@pytest.fixture(scope="session")
def int8_model(tmp_path_factory, write_noise):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("int8")
    write_noise(folder, size=16, each=8)
    data = datasets.load(str(folder / "pictures"), cache=folder / "cache")
    variant = Variant(capture.capture(Small(), INPUT), INPUT, details={"input_format": runtimes.PIXELS})
    context = Context(variant, data, folder, threads=1, train_threads=1)
    return runtimes.write(QuantizeInt8(reduce_range=True).apply(variant, context), "onnxruntime", folder)


@pytest.fixture(params=["float_model", "int8_model"])
def model(request):
    """The `.onnx` file of either."""
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="session")
def content(int8_model):
    """The INT8 network packed."""
    return packing.packed(memoryview(int8_model.read_bytes()), b"").written


def with_tensors(*tensors):
    """An ONNX model that is nothing but tensors: pairs of a data type and an array or bytes."""
    graph = onnx.GraphProto(name="g")
    for number, (kind, array) in enumerate(tensors):
        raw = array if isinstance(array, bytes) else array.tobytes()
        dims = [len(array)] if isinstance(array, bytes) else array.shape
        graph.initializer.add(name=f"tensor {number}", data_type=kind, dims=dims, raw_data=raw)
    return onnx.ModelProto(ir_version=10, graph=graph).SerializeToString()


def unpacked(content, *, limit=None):
    """The ONNX file of a packed one."""
    return b"".join(bytes(piece) for piece in Reader(io.BytesIO(content), limit=limit).pieces())


def sealed(head, rest):
    """A packed file whose checksums are right, whatever else is wrong with it."""
    head = dataclasses.replace(head, file_bytes=header.BYTES + len(rest), content_crc32=zlib.crc32(rest))
    return head.written() + rest


def opened(content):
    """Header, directory as bytes, and the blocks behind it, without any check."""
    fields = struct.unpack_from("<QQIIB3x32sI", content, 12)
    head = header.Header(*fields)
    end = header.BYTES + head.directory_packed_bytes
    listing = coders.decoded(head.directory_coder, content[header.BYTES : end], head.directory_bytes)
    return head, listing, content[end:]


def forged(content, *, listing=None, blocks=None, **changed):
    """A packed file with another directory, other blocks or other header fields, and right checksums."""
    head, own_listing, own_blocks = opened(content)
    listing = own_listing if listing is None else listing
    head = dataclasses.replace(
        head, directory_coder=coders.STORED, directory_bytes=len(listing), directory_packed_bytes=len(listing)
    )
    head = dataclasses.replace(head, **changed)
    return sealed(head, listing + (own_blocks if blocks is None else blocks))
