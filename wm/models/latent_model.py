"""What every world model shows to planners, probes and pictures, whatever it is made of."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager

from jaxtyping import Bool, Float
from torch import Tensor

from wm.config.errors import UserError
from wm.models.decoder import ImageDecoder
from wm.models.trainable import Trainable
from wm.types import Observation


class LatentModel(Trainable):
    """A model of how latents move under actions. A latent without its action is called content.

    Shape legend: B batch, T frames, N tokens of a frame's content, P patches, C content channels, V visual channels.

    Args:
        action_dim: A F, one model action.
        history_len: frames that it is judged and planned from.
        tokens_per_frame: P.
        decoder: draws pictures from the visual channels, or None.
        sampling_steps: K, passes through the network for a frame, of models that sample theirs; None: one pass, nothing to choose.
        future: which of the futures that such models can sample: each has noise of its own.
    """

    action_dim: int
    history_len: int
    tokens_per_frame: int
    decoder: ImageDecoder | None
    sampling_steps: int | None = None
    future: int = 0

    @property
    @abstractmethod
    def keeps_proprio(self) -> bool:
        """Whether content holds proprio apart from the visual channels."""

    @property
    @abstractmethod
    def is_aligned(self) -> bool:
        """Whether leading channels are tied to the true state."""

    @property
    @abstractmethod
    def is_projected(self) -> bool:
        """Whether content is a learned projection of the encoder's tokens."""

    @abstractmethod
    def encode_content(self, obs: Observation) -> Float[Tensor, "B T N C"]:
        """Patch tokens (and proprio) of each frame as content. Raises ValueError for pixels."""

    @abstractmethod
    def with_actions(
        self,
        content: Float[Tensor, "B T N C"],
        actions: Float[Tensor, "B T A"],
        has_actions: Bool[Tensor, "B"] | None = None,
    ) -> Float[Tensor, "B T M Z"]:
        """Content and the actions that follow it as one latent z."""

    @abstractmethod
    def visual(self, content: Float[Tensor, "B T N C"]) -> Float[Tensor, "B T P V"]:
        """The visual part of content: what probes, health and pictures read."""

    @abstractmethod
    def proprio(self, content: Float[Tensor, "B T N C"]) -> Float[Tensor, "B T K E"] | None:
        """The proprio part; None where content keeps none apart."""

    @abstractmethod
    def aligned(self, content: Float[Tensor, "B T N C"]) -> Float[Tensor, "B T K"]:
        """Patch mean of the channels that alignment ties to the state, or of the first ones where nothing is aligned."""

    @abstractmethod
    def rollout(
        self,
        context: Float[Tensor, "B1 K N C"],
        actions: Float[Tensor, "B L A"],
        has_actions: Bool[Tensor, "B"] | None = None,
    ) -> Float[Tensor, "B H N C"]:
        """Content of the H = L - K + 1 frames after K context frames.

        Args:
            context: one for each row of actions, or one for all (B1 = 1).
            actions: of the context frames, then of the imagined ones; the first K - 1 led through the context.
        """

    @contextmanager
    def sampled_in(self, num_steps: int | None) -> Iterator[None]:
        """Rollouts inside take so many steps a frame; None leaves them as they are. Raises UserError where they cannot."""
        before = self.sampling_steps
        if num_steps is not None:
            self._check_sampling_steps(num_steps)
            self.sampling_steps = num_steps
        try:
            yield
        finally:
            self.sampling_steps = before

    @contextmanager
    def in_future(self, number: int) -> Iterator[None]:
        """Rollouts inside sample that future. Without effect on a model that samples nothing."""
        before, self.future = self.future, number
        try:
            yield
        finally:
            self.future = before

    def _check_sampling_steps(self, num_steps: int) -> None:
        raise UserError(f"plan.sampling_steps: {num_steps}, but this model predicts a frame in one pass; say null")

    @abstractmethod
    def rollout_bytes(self, horizon: int, *, graph: bool = False) -> int:
        """About what one plan's rollout from one frame holds at its peak, in bytes of float32; with a graph, for gradients."""

    @property
    def needs_token_statistics(self) -> bool:
        """Whether `use_token_statistics` must be called before the first step."""
        return False

    def use_token_statistics(self, mean: Float[Tensor, "D"], std: Float[Tensor, "D"]) -> None:
        """Take mean and standard deviation of the training frames' tokens. They are in the checkpoint from then on."""
