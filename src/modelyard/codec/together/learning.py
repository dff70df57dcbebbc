"""How the form of a usual request is found out: by asking the codec itself.

The body is read again with other numbers in it, and the tensor says where each of them went. The bytes before a number
decide what a reader expects there, so another number in its place is read like it; that the place is none of a text or
a name is known because its number came out in the tensor.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from modelyard.codec.oip_turn import MOST_SLOT_BYTES
from modelyard.codec.scoring.quick import DOUBTS, new_parser
from modelyard.codec.signature_plan import plan_of, remember
from modelyard.codec.together.forms import MOST_FORMS, Form, Forms, Span
from modelyard.core.errors import ModelyardError
from modelyard.core.types import CodecBounds, DecodedRequest, RawRequest, Signature

MOST_BODY_BYTES = 64 * 1024
_MOST_KEYS = 64
_RADIX = 100  # of the probes' digits: its numbers fit every integer type
_NUMBER = re.compile(
    rb'"(?:[^"\\]++|\\.)*+"|(?<![^\s,:\[])(-?[0-9][-+.0-9eE]*+)(?=[\s,\]}]|\Z)', re.DOTALL
)  # a text, which is passed over, or a number
Read = Callable[[RawRequest, Signature, CodecBounds], DecodedRequest]


def learn(
    key: Any, raw: RawRequest, decoded: DecodedRequest, signature: Signature, bounds: CodecBounds, read: Read
) -> None:
    """Remembers the form of a request that `read` has just read, if it is one row of numbers and its form is new."""
    body = raw.body
    if decoded.rows != 1 or decoded.subject is not None or len(body) > MOST_BODY_BYTES:
        return
    plan = plan_of(signature)
    if plan.single is None or decoded.items not in ((), (0,)):
        return
    forms: Forms | None = plan.forms.get(key)
    if forms is None:
        forms = Forms()
        remember(plan.forms, key, forms, _MOST_KEYS)
    if any(form.bounds == bounds and form.fits(body) for form in forms.known) or not forms.due():
        return

    def ask(text: bytes) -> DecodedRequest:
        return read(RawRequest(text, raw.content_type), signature, bounds)

    form = _Pupil(body, decoded, plan.single.name, ask).form(bounds)
    if form is not None and _reads(form, body, decoded, plan.single):
        forms.known = [form, *forms.known[: MOST_FORMS - 1]]


def _reads(form: Form, body: bytes, decoded: DecodedRequest, single: Any) -> bool:
    """Whether the form makes of its own body what the single way made of it."""
    match = form.fits(body)
    try:
        rows = None if match is None else form.rows([match], single)
    except DOUBTS:
        new_parser()
        return False
    return rows is not None and np.array_equal(rows, decoded.inputs[single.name])


class _Pupil:
    """One body, what was made of it, and whom to ask."""

    def __init__(self, body: bytes, decoded: DecodedRequest, name: str, ask: Callable[[bytes], DecodedRequest]) -> None:
        self.body = body
        self.decoded = decoded
        self.name = name
        self.array = decoded.inputs[name]
        self.ask = ask

    def form(self, bounds: CodecBounds) -> Form | None:
        """The body's form; None where its numbers cannot be told apart. The last ones are tried first: a data frame may
        have numbers for names as well."""
        size = self.array.size
        spans = [match.span(1) for match in _NUMBER.finditer(self.body) if match[1] is not None]
        around = len(self.body) - sum(end - start for start, end in spans)
        if not 0 < size <= len(spans) <= _RADIX * _RADIX or around > MOST_SLOT_BYTES:
            return None
        for candidates in (spans[-size:], spans):
            order = self._order(candidates)
            if order is not None and len(order) < len(candidates):  # the others say nothing: they stay as they are
                candidates = [candidates[at] for at in sorted(order)]
                order = self._order(candidates)
            if order is not None and len(order) == len(candidates):
                return Form(self.body, candidates, order, self.decoded, bounds)
        return None

    def _order(self, spans: Sequence[Span]) -> list[int] | None:
        """Which of the numbers each place of the tensor holds: asked with the low, then with the high digit of each
        number's place. None where a place holds none of them, or two hold the same."""
        places = range(len(spans))
        low = self._asked(spans, [at % _RADIX + 1 for at in places])
        high = self._asked(spans, [at // _RADIX + 1 for at in places])
        if low is None or high is None:
            return None
        order = [int((tens - 1) * _RADIX + ones - 1) for ones, tens in zip(low, high, strict=True)]
        return order if len(set(order)) == len(order) and set(order) <= set(places) else None

    def _asked(self, spans: Sequence[Span], values: Sequence[int]) -> list[float] | None:
        """The tensor's numbers where these values stand in the body; None where that is another kind of request."""
        parts, at = [], 0
        for (start, end), value in zip(spans, values, strict=True):
            parts += [self.body[at:start], b"%d" % value]
            at = end
        try:
            told = self.ask(b"".join(parts) + self.body[at:])
        except ModelyardError:
            return None
        array, like = told.inputs.get(self.name), self.decoded
        alike = (told.rows, told.items, told.columnar, told.subject) == (1, like.items, like.columnar, None)
        return array.ravel().tolist() if alike and array is not None and array.shape == self.array.shape else None
