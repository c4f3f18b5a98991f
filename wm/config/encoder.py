"""Frozen vision encoders."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NamedTuple, Self, cast

from pydantic import Field, model_validator

from wm.config.base import Config, NonNegativeInt, PositiveInt

DEFAULT_PRETRAINED = "shipped"  # of the tiny encoder where nothing is said of weights, shape or seed
_RANDOM = {"patch_size": 14, "hidden_size": 64, "depth": 2, "heads": 4, "seed": 0}  # what draws random weights


class _Encoder(Config):
    @property
    def looks_back(self) -> bool:
        """Whether a frame's tokens depend on frames before it; its token store is then kept per frameskip."""
        return False


class TinyShape(NamedTuple):
    """What decides random weights."""

    image_size: int
    patch_size: int
    hidden_size: int
    depth: int
    heads: int
    seed: int


class TinyEncoderConfig(_Encoder):
    """The DINOv2 architecture, small: runs anywhere, downloads nothing.

    Args:
        pretrained: `none`: random weights, drawn from `seed`. `shipped`: those that come with wm. Else a folder that
            `wm pretrain-encoder` wrote. Left out where a shape or a seed is given: `none`.
        image_size: side of what the network sees, a multiple of its patches'; None is 84, or what the weights were trained at.
        patch_size, hidden_size, depth, heads: the shape of random weights, by default 14, 64, 2 and 4; others bring their own.
        seed: of random weights, by default 0.
    """

    kind: Literal["tiny"] = "tiny"
    # not `weights`: a change of kind keeps shared keys, and those of other kinds name what this one cannot read
    pretrained: Annotated[str, Field(min_length=1)] = DEFAULT_PRETRAINED
    image_size: PositiveInt | None = None
    patch_size: PositiveInt | None = None
    hidden_size: PositiveInt | None = None
    depth: PositiveInt | None = None
    heads: PositiveInt | None = None
    seed: NonNegativeInt | None = None

    @property
    def is_random(self) -> bool:
        """Whether the weights are drawn."""
        return self.pretrained == "none"

    @property
    def shape(self) -> TinyShape:
        """Of random weights; others bring their own."""
        if not self.is_random:
            raise ValueError(f"pretrained={self.pretrained} bring their own shape")
        return TinyShape(**{name: getattr(self, name) for name in TinyShape._fields})

    @model_validator(mode="before")
    @classmethod
    def _shape_of_random_weights(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        said = {key: value for key, value in cast(dict[str, Any], given).items() if value is not None}
        pretrained = said.setdefault("pretrained", "none" if said.keys() & _RANDOM else DEFAULT_PRETRAINED)
        return {**_RANDOM, "image_size": 84, **said} if pretrained == "none" else said

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if not self.is_random:
            for name in _RANDOM:
                if getattr(self, name) is not None:
                    raise ValueError(
                        f"{name}: pretrained={self.pretrained} brings its own; leave it out (or null), or say pretrained=none"
                    )
            return self
        image_size, patch_size, hidden_size, _, heads, _ = self.shape
        if image_size % patch_size:
            raise ValueError(f"image_size ({image_size}) must be a multiple of patch_size ({patch_size})")
        if hidden_size % heads:
            raise ValueError(f"hidden_size ({hidden_size}) must be a multiple of heads ({heads})")
        return self


class Dinov2EncoderConfig(_Encoder):
    """DINOv2 through transformers, with or without registers.

    Args:
        weights: a hub id (facebook/dinov2-small, -base, -large, dinov2-with-registers-small, ...) or a local folder with
            config.json and weights.
        image_size: frames are resized and centre-cropped to this, as the reference does.
        encode_size: then resized to this before the network; 196 gives 14 x 14 patches.
        tokens: `patch` tokens, or the `cls` token alone: one token a frame.
    """

    kind: Literal["dinov2"] = "dinov2"
    weights: str = "facebook/dinov2-small"
    image_size: PositiveInt = 224
    encode_size: PositiveInt = 196
    tokens: Literal["patch", "cls"] = "patch"


class Dinov3EncoderConfig(_Encoder):
    """DINOv3 (ViT) through transformers; its register tokens are dropped.

    Args:
        weights: a hub id (facebook/dinov3-vits16-pretrain-lvd1689m, -vitb16-, -vitl16-) or a local folder.
        image_size: frames are resized and centre-cropped to this; 224 gives 14 x 14 patches.
        tokens: `patch` tokens, or the `cls` token alone.
    """

    kind: Literal["dinov3"] = "dinov3"
    weights: str = "facebook/dinov3-vits16-pretrain-lvd1689m"
    image_size: PositiveInt = 224
    tokens: Literal["patch", "cls"] = "patch"


class _CroppedEncoder(_Encoder):
    image_size: PositiveInt
    resize_size: PositiveInt

    @model_validator(mode="after")
    def _crop_fits(self) -> Self:
        if self.resize_size < self.image_size:
            raise ValueError(f"resize_size ({self.resize_size}) must be at least image_size ({self.image_size})")
        return self

    def at_size(self, size: int) -> Self:
        """The same part of each frame on `size` pixels a side."""
        sizes = {"image_size": size, "resize_size": max(size, round(size * self.resize_size / self.image_size))}
        return self.model_copy(update=sizes)


class VJepa2EncoderConfig(_CroppedEncoder):
    """V-JEPA 2's video encoder through transformers. It sees both ways in time, so each frame gets a window that ends at it.

    Args:
        weights: a hub id (facebook/vjepa2-vitl-fpc64-256, -vith-fpc64-256, -vitg-fpc64-256) or a local folder.
        mode: `frame`: each frame alone, repeated to fill a tubelet, as V-JEPA 2-AC does; also what planning from one frame
            sees. `video`: the last `window` frames, at the frameskip of the clip; before the first the first is repeated.
        window: frames of a video window, a multiple of the tubelet size (2).
        image_size: what the network sees; 256 gives 16 x 16 patches.
        resize_size: the shorter side before the centre crop. 256 keeps the borders, as V-JEPA 2-AC does; 292 is the crop of
            the published video classifiers.
    """

    kind: Literal["vjepa2"] = "vjepa2"
    weights: str = "facebook/vjepa2-vitl-fpc64-256"
    mode: Literal["frame", "video"] = "frame"
    window: PositiveInt = 4
    image_size: PositiveInt = 256
    resize_size: PositiveInt = 256

    @property
    def looks_back(self) -> bool:
        return self.mode == "video"


class ResnetEncoderConfig(_CroppedEncoder):
    """ResNet-18, a baseline from supervised ImageNet, through transformers.

    Args:
        weights: a hub id or a local folder.
        tokens: `pooled`: one token a frame, the mean over the last feature map, DINO-WM's baseline; `patch`: that map's 7 x 7
            places as tokens.
        image_size: what the network sees, a multiple of 32.
        resize_size: the shorter side before the centre crop; 224 keeps the borders, 256 is the published evaluation.
    """

    kind: Literal["resnet18"] = "resnet18"
    weights: str = "microsoft/resnet-18"
    tokens: Literal["pooled", "patch"] = "pooled"
    image_size: PositiveInt = 224
    resize_size: PositiveInt = 224


class PrecomputedEncoderConfig(_Encoder):
    """No network: tokens come with the data (`data.sources.X.kind: precomputed`). Trains and evaluates latents; cannot plan.

    Args:
        provenance: which encoder and preprocessing made the features, in words: it stands for their weights, so that features
            of two encoders are never taken for one.
        dim: D of a token.
        grid: patches down and across; (1, 1) is one token a frame.
    """

    kind: Literal["precomputed"] = "precomputed"
    provenance: Annotated[str, Field(min_length=1)]
    dim: PositiveInt
    grid: tuple[PositiveInt, PositiveInt] = (1, 1)


class CustomEncoderConfig(_Encoder):
    """An encoder from outside this repository that obeys `wm.contracts.Encoder`.

    Args:
        target: `package.module:Name`; Name is called with `config` as keyword arguments.
        config: plain values; the object's fingerprint must change with whatever of them changes its tokens.
        temporal: its tokens of a frame depend on earlier frames too.
    """

    kind: Literal["custom"] = "custom"
    target: Annotated[str, Field(min_length=1)]
    config: dict[str, Any] = {}
    temporal: bool = False

    @property
    def looks_back(self) -> bool:
        return self.temporal


EncoderConfig = Annotated[
    Dinov2EncoderConfig
    | TinyEncoderConfig
    | Dinov3EncoderConfig
    | VJepa2EncoderConfig
    | ResnetEncoderConfig
    | PrecomputedEncoderConfig
    | CustomEncoderConfig,
    Field(discriminator="kind"),
]
