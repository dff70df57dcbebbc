"""Who is at it: the request's caller, in its threads too, and the process's user otherwise."""

from __future__ import annotations

import asyncio
import os
from contextvars import copy_context

import pytest

from modelyard.audit.acting import acting, current_actor, local_user
from modelyard.audit.event import Actor

OPS = Actor("client:ops", "k1")


def test_without_anybody_it_is_the_user_of_the_process() -> None:
    """`local:UID/NAME`, also again after a block."""
    assert current_actor() == local_user()
    assert current_actor().name.startswith(f"local:{os.getuid()}/")
    with acting(OPS):
        assert current_actor() == OPS
    assert current_actor() == local_user()


def test_tasks_do_not_mix() -> None:
    """Requests that run at once each have their own caller, and the threads that they hand work to have it too."""

    async def request(number: int) -> list[str]:
        with acting(Actor(f"client:c{number}")):
            await asyncio.sleep(0)
            here = current_actor().name
            return [here, (await asyncio.to_thread(current_actor)).name]

    async def all_at_once() -> list[list[str]]:
        return await asyncio.gather(*map(request, range(20)))

    assert asyncio.run(all_at_once()) == [[f"client:c{number}"] * 2 for number in range(20)]


def test_a_block_that_raises_ends_too() -> None:
    """The caller of a failed request does not stay."""

    def fail() -> None:
        with acting(OPS):
            raise KeyError

    context = copy_context()
    with pytest.raises(KeyError):
        context.run(fail)
    assert context.run(current_actor) == local_user()
