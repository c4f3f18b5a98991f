"""What drives a static step: the frames seen, the newest one, and buffers that stay where they are.

Shape legend: B rows, P patches, C token channels, A F action, K context frames, H imagined frames.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from wm.shortcut.noise import CONTEXT, IMAGINED, frame_noise
from wm.shortcut.step_facts import StepFacts

# As StaticStep.forward; in a process without the model's classes an exported program or a compiled one
Step = Callable[..., Any]
_WARM_UPS = 3  # before a capture, so that libraries have chosen their kernels


def step_inputs(facts: StepFacts, device: torch.device) -> tuple[Tensor, ...]:
    """Zeros of the shapes that a step takes, in its order: frame, actions, known, noise, keys, values, clock."""
    dtype, ring_dtype = getattr(torch, facts.dtype), getattr(torch, facts.ring_dtype)
    shapes: tuple[tuple[tuple[int, ...], torch.dtype], ...] = (
        (facts.frame_shape, dtype),
        ((facts.batch, 2, facts.action_dim), dtype),
        ((facts.batch, 2), torch.bool),
        ((1, 2, facts.num_patches, facts.token_dim), dtype),
        (facts.ring_shape, ring_dtype),
        (facts.ring_shape, ring_dtype),
        ((), torch.int64),
    )
    return tuple(torch.zeros(shape, dtype=dtype, device=device) for shape, dtype in shapes)


class StepDriver:
    """B rows that see frames and imagine others, one step at a time.

    Nothing is allocated between steps but what the step itself needs. A frame enters the ring with the step after it, so that
    each of them costs one step, whether its own prediction is wanted or not.

    Args:
        cuda_graph: replay one captured graph a step. CUDA alone.

    Raises:
        ValueError: for a graph elsewhere.
    """

    def __init__(self, step: Step, facts: StepFacts, device: torch.device, *, cuda_graph: bool = False) -> None:
        if cuda_graph and device.type != "cuda":
            raise ValueError(f"a CUDA graph needs a CUDA device, not {device}")
        self.facts = facts
        self._step = step
        self._buffers = step_inputs(facts, device)
        self._frame, self._actions, self._known, self._noise, self._keys, self._values, self._clock = self._buffers
        self._position: int | None = None  # of the newest frame
        self._replay = self._captured() if cuda_graph else self._tick

    @property
    def num_frames(self) -> int:
        """Frames since the last reset."""
        return 0 if self._position is None else self._position + 1

    def reset(self) -> None:
        """Forgets all frames."""
        self._clock.zero_()
        self._known.zero_()
        self._position = None

    def observe(self, frame: Float[Tensor, "B P C"], action: Float[Tensor, "B A"] | None = None) -> None:
        """A frame that was seen becomes the newest one.

        Args:
            action: that led to it, normalised; None: not known.
        """
        if self._position is None:
            self._position = 0
        else:
            self._advance(action)
        self._frame.copy_(frame[:, None])

    def imagine(self, actions: Float[Tensor, "B H A"]) -> Float[Tensor, "B H P C"]:
        """The frames that actions lead to from the newest one on. What was seen stays as it was.

        Raises:
            ValueError: if no frame was seen.
        """
        if self._position is None:
            raise ValueError("no frame was seen: observe one first")
        seen = self._position, [kept.clone() for kept in self._state]
        found = torch.stack([self._advance(action) for action in actions.unbind(dim=1)], dim=1)
        self._position = seen[0]
        for buffer, kept in zip(self._state, seen[1], strict=True):
            buffer.copy_(kept)
        return found

    def rollout(self, context: Float[Tensor, "B K P C"], actions: Float[Tensor, "B L A"]) -> Float[Tensor, "B H P C"]:
        """As LatentModel.rollout, from a reset on: the H = L - K + 1 frames after K context frames."""
        self.reset()
        before = context.shape[1] - 1
        for position, frame in enumerate(context.unbind(dim=1)):
            self.observe(frame, actions[:, position - 1] if position else None)
        return self.imagine(actions[:, before:])

    @property
    def _state(self) -> tuple[Tensor, ...]:
        """All that a step changes."""
        return self._frame, self._actions, self._known, self._keys, self._values, self._clock

    @torch.no_grad()
    def _advance(self, action: Float[Tensor, "B A"] | None) -> Float[Tensor, "B P C"]:
        """The frame that an action leads to, which is the newest one from then on."""
        assert self._position is not None
        if action is not None:
            self._actions[:, 1] = action
        self._known[:, 1] = action is not None
        if self.facts.noise_seed is not None:
            for place, stream in enumerate((CONTEXT, IMAGINED)):
                shape = self.facts.num_patches, self.facts.token_dim
                drawn = frame_noise(self.facts.noise_seed, stream, [self._position + place], shape)
                self._noise[:, place] = drawn[:, 0]
        self._replay()
        self._position += 1
        return self._frame[:, 0].clone()

    def _tick(self) -> None:
        """One step, written back into the buffers that it was read from."""
        following, keys, values = self._step(*self._buffers)
        slot = (self._clock % self._keys.shape[-2])[None]
        self._keys.index_copy_(-2, slot, keys)
        self._values.index_copy_(-2, slot, values)
        self._clock += 1
        self._frame.copy_(following)
        for led in (self._actions, self._known):
            led[:, 0] = led[:, 1]

    @torch.no_grad()
    def _captured(self) -> Callable[[], None]:
        """One step as a graph over these buffers.

        Source: torch's manual, "CUDA semantics": warm up on a side stream, then capture.
        """
        side = torch.cuda.Stream(self._frame.device)
        side.wait_stream(torch.cuda.current_stream(self._frame.device))
        with torch.cuda.stream(side):
            for _ in range(_WARM_UPS):
                self._tick()
        torch.cuda.current_stream(self._frame.device).wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._tick()
        for buffer in self._state:
            buffer.zero_()
        return graph.replay
