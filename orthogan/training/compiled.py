"""Compilation of whole phases with ``torch.compile``, if that is faster."""

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
            on a CPU nearly all time is spent in convolutions, which are library calls already (benchmarks/NOTES.md).
            With "auto", what does not compile runs uncompiled after a warning.

    Raises:
        RuntimeError: (from a call of a compiled function) the error of torch, if a mode was set explicitly.
    """

    def __init__(self, mode: str, device: torch.device) -> None:
        self.forgiving = mode == "auto"
        if mode == "auto":
            mode = "default" if device.type == "cuda" else "none"
        self.mode = mode
        self.graphs = mode in GRAPHS and device.type == "cuda"
        if mode != "none":
            if rank_and_world()[0] == 0:
                print("orthogan: compiling the training step takes a minute or two", file=sys.stderr)
            config: Any = torch._dynamo.config  # pyright: ignore
            if hasattr(config, "trace_autograd_ops"):  # so that a gradient penalty does not break the graph
                config.trace_autograd_ops = True

    def __call__(self, function: Function) -> Function:
        """Compile ``function``; the shapes of its tensors must not change between calls."""
        if self.mode == "none":
            return function
        # torch counts recompilations by code object, so that runs in one process would share the limit
        own: Any = FunctionType(
            function.__code__.replace(), function.__globals__, function.__name__, function.__defaults__
        )
        compiled = torch.compile(own, dynamic=False, mode=self.mode)
        return _Forgiving(function, compiled) if self.forgiving else compiled  # pyright: ignore[reportReturnType]

    def begin(self) -> None:
        """Mark the beginning of a phase: the outputs of earlier graphs are no longer needed."""
        if self.graphs:
            torch.compiler.cudagraph_mark_step_begin()


class _Forgiving:
    """The compiled function, or the plain one after compiling failed once."""

    def __init__(self, plain: Callable[..., Any], compiled: Callable[..., Any]) -> None:
        self.plain, self.use = plain, compiled
        self.tried = False

    def __call__(self, *args: Any) -> Any:
        if self.tried:
            return self.use(*args)
        self.tried = True
        functions: Any = torch._functorch.config  # pyright: ignore
        at_once = {"force_non_lazy_backward_lowering": True}  # so that a failure of the backward pass occurs here
        try:
            with functions.patch({k: v for k, v in at_once.items() if hasattr(functions, k)}):
                return self.use(*args)
        except Exception as error:  # any error of the compiler; errors of the function itself occur again below
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            print(
                f"orthogan: cannot compile {self.plain.__name__}, so it runs uncompiled, which is slower: {reason}",
                file=sys.stderr,
            )
            self.use = self.plain
            return self.plain(*args)


def supports_compiled_double_backward(net: nn.Module) -> bool:
    """Whether a compiled graph can differentiate ``net`` twice.

    torch 2.15 traces an ``autograd.Function`` into a graph whose second derivatives are silently wrong. The matrix
    roots of ``orthogan.linalg`` by eigh and Pade approximants are such functions, and a user's module may contain one.
    """
    return all(
        type(part).__module__.partition(".")[0] in ("torch", "orthogan")
        and getattr(part, "method", None) not in ("eigh", "pade")
        for part in net.modules()
    )
