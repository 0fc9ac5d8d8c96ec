"""How a process waits for the first one."""

from __future__ import annotations

import socket
import time

import pytest

from orthogan import process_group


def test_a_process_waits_until_the_first_one_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as first:
        first.bind(("127.0.0.1", 0))
        port = first.getsockname()[1]
        slept = []

        def sleep(seconds: float) -> None:  # it was refused
            slept.append(seconds)
            first.listen()

        monkeypatch.setattr(process_group.time, "sleep", sleep)
        process_group._reach("127.0.0.1", port, time.monotonic() + 3600)
    assert len(slept) == 1


@pytest.mark.parametrize("address", ["127.0.0.1", "no.such.host.invalid"])
def test_nobody_is_waited_for_beyond_the_end(address: str) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        with pytest.raises(OSError):
            process_group._reach(address, nobody.getsockname()[1], time.monotonic() - 1)
