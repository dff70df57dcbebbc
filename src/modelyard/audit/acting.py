"""Who is at it now: set by whoever lets a request in, read by whoever writes a change down.

A context variable, because between the two lie routes and stations that have no other use for it, and a change that
forgot to pass it on would be one without an author. Without it the author is the user of this process, which is the
truth on the command line and at a server's start.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from modelyard.audit.event import Actor

_acting: ContextVar[Actor | None] = ContextVar("modelyard_acting", default=None)


@contextmanager
def acting(actor: Actor) -> Iterator[None]:
    """Inside the block, and in the threads it hands work to, this is who changes things."""
    token = _acting.set(actor)
    try:
        yield
    finally:
        _acting.reset(token)


def current_actor() -> Actor:
    """Who changes things now."""
    return _acting.get() or local_user()


def local_user() -> Actor:
    """The user of this process."""
    uid = os.getuid()
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:  # a container's user without an entry
        name = "unknown"
    return Actor(f"local:{uid}/{name}")
