"""Whole phases under ``torch.compile``, where that pays."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FunctionType
from typing import Any, TypeVar

import torch
from torch import nn

from orthogan.distributed import rank_and_world

GRAPHS = ("reduce-overhead", "max-autotune")  # torch's modes that replay CUDA graphs
Function = TypeVar("Function", bound=Callable[..., Any])


class Compiler:
    """Compiles the functions of a run's phases, each whole: forward, input gradients, loss and its backward.

    Args:
        mode: "auto", "none", or a mode of ``torch.compile``. "auto" is "default" on CUDA; elsewhere it is "none", since
            on a CPU nearly all time goes to convolutions, which are library calls already (benchmarks/NOTES.md). What
            does not compile under "auto" runs as it is, after a warning.

    Raises:
        RuntimeError: (from a call of a compiled function) what torch says, if a mode was asked for by name.
    """

    def __init__(self, mode: str, device: torch.device) -> None:
        self.forgiving = mode == "auto"
        if mode == "auto":
            mode = "default" if device.type == "cuda" else "none"
        self.mode = mode
        self.graphs = mode in GRAPHS and device.type == "cuda"
        if mode != "none":
            if rank_and_world()[0] == 0:
                print(
                    "orthogan: compiling the phases takes a minute or two, at the first step of each", file=sys.stderr
                )
            config: Any = torch._dynamo.config  # pyright: ignore
            if hasattr(config, "trace_autograd_ops"):  # so that a gradient penalty does not break the graph
                config.trace_autograd_ops = True

    def __call__(self, function: Function) -> Function:
        """``function`` compiled; its tensors keep their shapes from call to call."""
        if self.mode == "none":
            return function
        # torch counts recompilations by code object, so that the runs of one process would use up each other's share
        own: Any = FunctionType(
            function.__code__.replace(), function.__globals__, function.__name__, function.__defaults__
        )
        compiled = torch.compile(own, dynamic=False, mode=self.mode)
        return _Forgiving(function, compiled) if self.forgiving else compiled  # pyright: ignore[reportReturnType]

    def begin(self) -> None:
        """Say that a phase begins: what the graphs of the last one returned is not needed any more."""
        if self.graphs:
            torch.compiler.cudagraph_mark_step_begin()


class _Forgiving:
    """The compiled function, or the plain one from the first time on that compiling fails."""

    def __init__(self, plain: Callable[..., Any], compiled: Callable[..., Any]) -> None:
        self.plain, self.use = plain, compiled
        self.tried = False

    def __call__(self, *args: Any) -> Any:
        if self.tried:
            return self.use(*args)
        self.tried = True
        functions: Any = torch._functorch.config  # pyright: ignore
        at_once = {"force_non_lazy_backward_lowering": True}  # so that a failure of the backward pass shows here
        try:
            with functions.patch({k: v for k, v in at_once.items() if hasattr(functions, k)}):
                return self.use(*args)
        except Exception as error:  # whatever a compiler raises; an error of the function's own comes again below
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            print(f"orthogan: {self.plain.__name__} is not compiled, which costs only time: {reason}", file=sys.stderr)
            self.use = self.plain
            return self.plain(*args)


def supports_compiled_double_backward(net: nn.Module) -> bool:
    """Whether a compiled graph may differentiate ``net`` twice.

    torch 2.15 traces an ``autograd.Function`` into a graph whose second derivatives are silently wrong. The matrix
    roots of ``orthogan.linalg`` by eigh and Pade approximants are such, and a module of the user's may hold one.
    """
    return all(
        type(part).__module__.partition(".")[0] in ("torch", "orthogan")
        and getattr(part, "method", None) not in ("eigh", "pade")
        for part in net.modules()
    )
