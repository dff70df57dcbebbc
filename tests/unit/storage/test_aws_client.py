"""A client of AWS over a fork."""

from __future__ import annotations

import os
import threading

from modelyard.storage.aws.client import ProcessClient


class Made:
    """What a client is; closed or not."""

    closed = False

    def close(self) -> None:
        """Remembers it."""
        self.closed = True


def test_a_child_makes_its_own_whatever_a_thread_holds() -> None:
    """A process is forked while a thread makes the client, which takes a while: the child, where that thread is not,
    makes one of its own instead of waiting for ever; the parent goes on with its one."""
    making, go_on = threading.Event(), threading.Event()
    parent = os.getpid()

    def make() -> Made:
        if os.getpid() == parent:
            making.set()
            assert go_on.wait(30)
        return Made()

    client = ProcessClient(make)
    maker = threading.Thread(target=client.get)
    maker.start()
    assert making.wait(30)
    child = os.fork()
    if child == 0:
        got = threading.Thread(target=client.get, daemon=True)
        got.start()
        got.join(10)
        os._exit(1 if got.is_alive() else 0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    go_on.set()
    maker.join(30)
    made = client.get()
    assert client.get() is made
    client.close()
    assert made.closed
    assert client.get() is not made
