"""Bodies that are equal but for the numbers of their one row: read together, as one document.

Whoever sends the bytes of a known form around other numbers has sent the same request with another row, whatever the
surface makes of such a body (`learning` finds out). A doubt sends a body the single way, which gives the same tensors
and the same refusals.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from modelyard.codec.oip_turn import narrowed
from modelyard.codec.scoring.quick import DOUBTS, kept_parser, new_parser
from modelyard.codec.signature_plan import SinglePlan, plan_of
from modelyard.core.types import Array, CodecBounds, DecodedRequest, Signature

MOST_FORMS = 4
"""So many forms of one surface and content type are known at a time."""
LEARN_AFTER = 256
"""Learning costs about a millisecond. Beyond the first ones, so many requests of no known form come before each."""
Span = tuple[int, int]
"""Where a number begins and ends in a body."""


class Form:
    """What is around the numbers, as a pattern, and where they go.

    Each group of `fits` holds one number, or a list of them; `lists` says of which groups how many commas that makes.
    `order` is None where the tensor has the numbers in the body's order. `request` is the one it was learned from.
    """

    __slots__ = ("bounds", "fits", "lists", "order", "request", "shape", "size")

    def __init__(
        self, body: bytes, spans: Sequence[Span], order: list[int], request: DecodedRequest, bounds: CodecBounds
    ) -> None:
        pattern, sizes = _pattern(body, spans)
        self.fits: Callable[[bytes], re.Match[bytes] | None] = re.compile(pattern, re.DOTALL).fullmatch
        self.lists = [(group, size - 1) for group, size in enumerate(sizes, 1) if size > 1]
        self.order = None if order == list(range(len(order))) else np.array(order, np.intp)
        self.request = request
        self.bounds = bounds
        (array,) = request.inputs.values()
        self.shape: tuple[int, ...] = array.shape[1:]
        self.size = len(spans)

    def rows(self, found: Sequence[re.Match[bytes]], single: SinglePlan) -> Array | None:
        """The rows of bodies that fit, in order, as one tensor; None where any of them is in doubt.

        A group holds nothing but what numbers are made of and, if it is a list, as many commas as it must: where all
        of them together are one JSON list, each holds the numbers that it should.
        """
        for group, commas in self.lists:
            if any(match[group].count(b",") != commas for match in found):
                return None
        text = b"[%b]" % b",".join([b",".join(match.groups()) for match in found])
        wide = np.frombuffer(kept_parser(text).parse(text).as_buffer(of_type=single.kind), dtype=single.wide)
        if wide.size != self.size * len(found):
            return None
        narrow = narrowed(wide, single)
        if narrow is None:
            return None
        table = narrow.reshape(len(found), self.size)
        ordered = table if self.order is None else table[:, self.order]
        return ordered.reshape(len(found), *self.shape)


class Forms:
    """The forms of one surface and content type that were seen of late, and how many other requests were."""

    __slots__ = ("known", "strangers", "tries")

    def __init__(self) -> None:
        self.known: list[Form] = []
        self.strangers = self.tries = 0

    def due(self) -> bool:
        """Whether a request of no known form shall be learned; it is counted."""
        self.strangers += 1
        if self.tries >= MOST_FORMS and self.strangers < LEARN_AFTER:
            return False
        self.strangers = 0
        self.tries += 1
        return True


def decode_together(
    key: Any, bodies: Sequence[bytes], signature: Signature, bounds: CodecBounds
) -> list[DecodedRequest | None]:
    """One request per body of a known form, None for all others. Never raises."""
    read: list[DecodedRequest | None] = [None] * len(bodies)
    plan = plan_of(signature)
    forms: Forms | None = plan.forms.get(key)
    if forms is None or plan.single is None:
        return read
    left = list(range(len(bodies)))
    for form in forms.known:
        if form.bounds != bounds or not left:
            continue
        found = [form.fits(bodies[at]) for at in left]
        mine = [match for match in found if match is not None]
        places = left if len(mine) == len(left) else [at for at, match in zip(left, found, strict=True) if match]
        for at, request in zip(places, _requests(form, mine, plan.single), strict=False):
            read[at] = request
        left = [at for at, match in zip(left, found, strict=True) if match is None]
    return read


def _requests(form: Form, found: Sequence[re.Match[bytes]], single: SinglePlan) -> Iterator[DecodedRequest]:
    try:
        rows = form.rows(found, single) if found else None
    except DOUBTS:
        new_parser()
        return
    if rows is None:
        return
    name, like = single.name, form.request
    items, columnar = like.items, like.columnar
    for at in range(len(found)):
        yield DecodedRequest({name: rows[at : at + 1]}, 1, None, (), False, False, items, None, columnar)


def _pattern(body: bytes, spans: Sequence[Span]) -> tuple[bytes, list[int]]:
    """A pattern with a group for each number, or list of numbers with nothing but commas between them, and how many
    numbers each group holds."""
    pattern, sizes = [re.escape(body[: spans[0][0]])], []
    at = 0
    while at < len(spans):
        last = at
        between = body[spans[at][1] : spans[at + 1][0]] if at + 1 < len(spans) else b""
        if between in (b",", b", "):
            while last + 1 < len(spans) and body[spans[last][1] : spans[last + 1][0]] == between:
                last += 1
        follows = spans[last + 1][0] if last + 1 < len(spans) else len(body)
        pattern.append(rb"([-+.0-9eE%b]++)" % (between if last > at else b""))
        pattern.append(re.escape(body[spans[last][1] : follows]))
        sizes.append(last - at + 1)
        at = last + 1
    return b"".join(pattern), sizes
