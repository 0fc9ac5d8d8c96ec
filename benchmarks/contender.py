"""One contender in a separate process: ``python -m benchmarks.contender``, started by ``benchmarks.rivals``.

The first message on stdin is ``{"contender": {...}, "setting": {...}, "parts": bool}``. The answer is
``{"ready": facts}`` or, if the contender cannot run here, ``{"absent": reason}``. ``benchmarks.gate`` documents the
messages that follow.
"""

from __future__ import annotations

import os
import sys
import traceback
from typing import Any

import torch

from benchmarks.gate import Channel, Finished, Gate
from benchmarks.setting import Setting
from orthogan.errors import UserError


def compete(word: dict[str, Any], channel: Channel) -> None:
    """Run the contender that ``word`` describes until no more steps are requested.

    ``kind`` is ``orthogan`` (with ``overrides`` of its config), ``plain`` (with ``bf16`` and ``channels_last``), or the
    name of a peer (with the ``path`` of the user's copy).
    """
    setting = Setting(**word["setting"])
    options = dict(word["contender"])
    kind = options.pop("kind")
    gate = Gate(channel, torch.device(setting.device), parts=word["parts"])
    if kind == "orthogan":  # sets all of these switches itself
        from benchmarks import ours

        ours.run(setting, gate, **options)
        return
    torch.backends.cudnn.benchmark = True  # shapes never change; some peers set it, and it does not hurt the others
    if kind == "plain":
        from benchmarks import plain_loop

        plain_loop.run(setting, gate, **options)
    else:
        from benchmarks.peers import PEERS

        PEERS[kind](setting, gate, **options)


def main() -> None:
    """Exchange JSON lines; an error is sent in one line, and its traceback goes to stderr."""
    channel = Channel.standard()
    try:
        compete(channel.hear(), channel)
    except Finished:
        pass
    except Exception as error:
        traceback.print_exc()
        first = str(error).strip().partition("\n")[0]
        channel.say({"absent": first if isinstance(error, UserError) else f"{type(error).__name__}: {first}"})
    sys.stderr.flush()
    os._exit(0)  # do not wait for the threads and reader processes of a contender


if __name__ == "__main__":
    main()
