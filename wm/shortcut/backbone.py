"""The block-causal transformer that predicts clean latents from noisy ones.

Shape legend: B batch, T frames, P patches, C latent channels, N tokens a frame, W width.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from wm.config.backbone import BackboneConfig
from wm.shortcut.layers import FrameCache, RmsNorm, SpaceLayer, TimeLayer
from wm.shortcut.rotary import rotation


class BlockCausalTransformer(nn.Module):
    """x^ of every frame from its own noisy latents, label and action, and from the frames before it.

    A frame's tokens are [registers | latents | shortcut | action], N = registers + P + 2. The shortcut token joins two learned
    vectors, of the level and of log2 of the step. It and the action are also added to every token of the frame: by attention alone a
    small network takes thousands of steps to find one token among many. A learned vector per token of the frame is added at the
    input, so that space layers need no other position; time layers turn queries and keys by the frame's time (RoPE). The output
    is read at the latent tokens.

    It starts at zero: latents are standardised, so that 0 is the best constant prediction, and both half-steps of a bootstrap
    target agree from the first step on. Positions and labels start as loud as standardised latents, or noise would drown them.

    Args:
        channels: C.
        num_patches: P.
        k_max: power of two; levels are 0..k_max, steps 1, 2, 4, ..., k_max.

    Source: Dreamer 4, arXiv 2509.24527, section 3.2 and its ablation of space and time layers; patches of a frozen encoder take
    the place of its tokenizer's latents. There label and action are tokens alone.
    """

    def __init__(self, config: BackboneConfig, channels: int, num_patches: int, k_max: int) -> None:
        super().__init__()
        self.config = config
        self.num_patches = num_patches
        self.num_tokens = config.registers + num_patches + 2
        self.from_latents = nn.Linear(channels, config.width)
        self.level_table = nn.Embedding(k_max + 1, config.width // 2)
        self.step_table = nn.Embedding(k_max.bit_length(), config.width // 2)
        self.positions = nn.Parameter(torch.randn(self.num_tokens, config.width))
        self.layers = nn.ModuleList(
            SpaceLayer(config) if number % config.time_every else TimeLayer(config, number // config.time_every - 1)
            for number in range(1, config.depth + 1)
        )
        self.norm = RmsNorm(config.width)
        self.to_latents = nn.Linear(config.width, channels)
        self._initialise()

    def forward(
        self,
        latents: Float[Tensor, "B T P C"],
        levels: Int[Tensor, "B T"],
        steps: Int[Tensor, "B T"],
        actions: Float[Tensor, "B T W"],
    ) -> Float[Tensor, "B T P C"]:
        """Predicted clean latents.

        Args:
            latents: z~, standardised.
            levels: 0..k_max.
            steps: 1, 2, 4, ..., k_max.
            actions: embedding of the action that led to each frame.
        """
        x = self._tokens(latents, levels, steps, actions)
        turned = rotation(0, x.shape[1], self.config.head_dim, self.config.rope_base, x)
        for layer in self.layers:
            inputs = (x, turned) if isinstance(layer, TimeLayer) else (x,)
            if self.config.checkpointing and self.training:
                x = checkpoint(layer, *inputs, use_reentrant=False)
            else:
                x = layer(*inputs)
        return self._read(x)

    @torch.no_grad()
    def step(
        self,
        latents: Float[Tensor, "B T P C"],
        levels: Int[Tensor, "B T"],
        steps: Int[Tensor, "B T"],
        actions: Float[Tensor, "B T W"],
        cache: FrameCache,
        num_committed: int = 0,
    ) -> Float[Tensor, "B T P C"]:
        """`forward` of new frames behind those in the cache, without a gradient.

        Frame t + 1 can be denoised while frame t is committed: give both, with num_committed = 1. A frame that was not committed
        leaves no trace.

        Args:
            num_committed: how many of these frames, from the first on, the cache keeps.

        Raises:
            ValueError: if that is more than there are.
        """
        if not 0 <= num_committed <= latents.shape[1]:
            raise ValueError(f"num_committed must be 0..{latents.shape[1]}, the frames given, not {num_committed}")
        x = self._tokens(latents, levels, steps, actions)
        turned = rotation(cache.clock, x.shape[1], self.config.head_dim, self.config.rope_base, x)
        for layer in self.layers:
            x = layer(x, turned, cache, num_committed) if isinstance(layer, TimeLayer) else layer(x)
        cache.advance(num_committed)
        return self._read(x)

    def _tokens(self, latents: Tensor, levels: Tensor, steps: Tensor, actions: Tensor) -> Float[Tensor, "B T N W"]:
        exponents = steps.float().log2().round().long()
        shortcut = torch.cat([self.level_table(levels), self.step_table(exponents)], dim=-1)
        registers = actions.new_zeros(*actions.shape[:2], self.config.registers, self.config.width)
        parts = [
            registers,
            self.from_latents(latents.to(self.from_latents.weight.dtype)),
            shortcut[:, :, None],
            actions[:, :, None],
        ]
        return torch.cat(parts, dim=2) + self.positions + (shortcut + actions)[:, :, None]

    def _read(self, x: Float[Tensor, "B T N W"]) -> Float[Tensor, "B T P C"]:
        return self.to_latents(self.norm(x[:, :, self.config.registers : self.config.registers + self.num_patches]))

    def _initialise(self) -> None:
        """Every Linear keeps a variance of 1, what is added to the residual stream is 1 / (2 depth) of it in all."""
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear):
                added = name.startswith("layers") and name.endswith("to_out")
                std = module.in_features**-0.5 * ((2 * self.config.depth) ** -0.5 if added else 1.0)
                nn.init.normal_(module.weight, std=std)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        nn.init.zeros_(self.to_latents.weight)
