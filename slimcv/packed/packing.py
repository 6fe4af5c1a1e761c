"""From the bytes of an ONNX file to those of a packed one."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

from slimcv.packed import choosing, coders, directory, header, wire
from slimcv.packed.blocks import grouped
from slimcv.packed.directory import Block
from slimcv.packed.encodings import Elements, Encoded

LEAST_BYTES = 4
"""Smaller tensors stay in the graph: describing them takes more than they are."""


@dataclass(frozen=True)
class Content:
    """A packed file, and what it is made of.

    `graph_bytes`, `manifest_bytes`, `tensor_bytes` and `sample_bytes` are as packed; `ways` counts tensors by
    how they are written.
    """

    written: bytes
    graph_bytes: int
    manifest_bytes: int
    tensor_bytes: int
    sample_bytes: int
    ways: dict[str, int]


def packed(model: memoryview, manifest: bytes, samples: bytes = b"") -> Content:
    """The packed file of an ONNX file, with golden samples at its end. Raises NotOnnx for what is none."""
    spans = _described(wire.spans(model))
    tensors = _encoded(model, spans)
    skeleton, gaps, end = [], [], 0
    for span in spans:
        skeleton.append(bytes(model[end : span.start]))
        gaps.append(span.start - end)
        end = span.start + span.length
    skeleton.append(bytes(model[end:]))
    streams = [stream for tensor in tensors for stream in tensor.every_stream()]
    groups = grouped(streams)
    places = [0] * len(streams)
    for block, numbers in enumerate(groups, start=directory.SKELETON + 1):
        for number in numbers:
            places[number] = block
    contents = [manifest, b"".join(skeleton)]
    contents += (b"".join(streams[number].content for number in numbers) for numbers in groups)
    if samples:
        contents.append(samples)
    blocks, body = _coded(contents)
    of_tensors = blocks[directory.SKELETON + 1 : len(groups) + directory.SKELETON + 1]
    parts = [
        (gap, span.length // span.width, span.width, tensor)
        for gap, span, tensor in zip(gaps, spans, tensors, strict=True)
    ]
    ways: dict[str, int] = {}
    for tensor in tensors:
        ways[tensor.ways()] = ways.get(tensor.ways(), 0) + 1
    return Content(
        written=_file(model, directory.written(blocks, parts, places), body, has_samples=bool(samples)),
        graph_bytes=blocks[directory.SKELETON].packed_bytes,
        manifest_bytes=blocks[directory.MANIFEST].packed_bytes,
        tensor_bytes=sum(block.packed_bytes for block in of_tensors),
        sample_bytes=blocks[-1].packed_bytes if samples else 0,
        ways=dict(sorted(ways.items(), key=lambda item: -item[1])),
    )


def _described(spans: Sequence[wire.Span]) -> list[wire.Span]:
    """The tensors that do not stay in the graph, in their order: the largest, where there are too many."""
    worth = [span for span in spans if span.length >= LEAST_BYTES]
    if len(worth) <= directory.MOST_PARTS:
        return worth
    largest = sorted(worth, key=lambda span: -span.length)[: directory.MOST_PARTS]
    return sorted(largest, key=lambda span: span.start)


def _encoded(model: memoryview, spans: Sequence[wire.Span]) -> list[Encoded]:
    """Small tensors are decided upon together with their like, large ones each."""
    alike: dict[tuple[int, bool], list[int]] = {}
    found: dict[int, Encoded] = {}
    for number, span in enumerate(spans):
        elements = _elements(model, span)
        if span.length > choosing.SMALL_BYTES:
            found[number] = choosing.best(elements, rows=span.rows)
        else:
            signed = bool((elements >> (8 * span.width - 1)).any())
            alike.setdefault((span.width, signed), []).append(number)
    for numbers in alike.values():
        chosen = choosing.alike([_elements(model, spans[number]) for number in numbers])
        found |= zip(numbers, chosen, strict=True)
    return [found[number] for number in range(len(spans))]


def _elements(model: memoryview, span: wire.Span) -> Elements:
    return choosing.elements_of(model[span.start : span.start + span.length], span.width)


def _coded(contents: Sequence[bytes]) -> tuple[list[Block], bytes]:
    blocks, body = [], []
    for content in contents:
        coder, packed_content = coders.smallest(content)
        blocks.append(Block(coder, len(content), len(packed_content)))
        body.append(packed_content)
    return blocks, b"".join(body)


def _file(model: memoryview, listing: bytes, body: bytes, *, has_samples: bool) -> bytes:
    coder, packed_listing = coders.smallest(listing)
    content = packed_listing + body
    head = header.Header(
        file_bytes=header.BYTES + len(content),
        onnx_bytes=len(model),
        directory_packed_bytes=len(packed_listing),
        directory_bytes=len(listing),
        directory_coder=coder,
        sha256=hashlib.sha256(model).digest(),
        content_crc32=zlib.crc32(content),
        has_samples=has_samples,
    )
    return head.written() + content
