"""The sizes of a static step: what a caller must know to give it tensors."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class StepFacts:
    """Numbers and names that JSON can hold.

    Args:
        batch: rows that advance together.
        num_patches: tokens that the encoder makes of a frame.
        token_dim: channels of such a token.
        action_dim: numbers of a normalised model action.
        num_time_layers: layers that keep keys and values.
        num_tokens: tokens of a frame inside the network.
        window: frames that a frame sees, its own included.
        sampling_steps: passes through the network for a frame.
        noise_seed: of the noise of rollouts; None: the model takes none.
        dtype: of frames, actions and noise, as torch names it.
        ring_dtype: of weights, keys and values.
    """

    batch: int
    num_patches: int
    token_dim: int
    action_dim: int
    num_time_layers: int
    num_tokens: int
    kv_heads: int
    head_dim: int
    window: int
    sampling_steps: int
    noise_seed: int | None
    dtype: str
    ring_dtype: str

    @property
    def frame_shape(self) -> tuple[int, int, int, int]:
        """Content of one frame of every row, (B, 1, P, C)."""
        return self.batch, 1, self.num_patches, self.token_dim

    @property
    def ring_shape(self) -> tuple[int, int, int, int, int, int]:
        """Keys, or values: (layers, B, tokens, key-value heads, slots, head dim)."""
        return self.num_time_layers, self.batch, self.num_tokens, self.kv_heads, self.window - 1, self.head_dim
