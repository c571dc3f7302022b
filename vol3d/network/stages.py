"""The stages that our U-Net is built from, and nnU-Net's rule for them."""

from dataclasses import dataclass
from math import prod
from typing import Literal, get_args

from vol3d.network.blocks import ONE, Attention, Norm
from vol3d.network.resnet import MAPS
from vol3d.shapes import Shape3, Spacing

MIN_EDGE = 4
RESIDUAL_BLOCKS = (1, 3, 4, 6)  # and 6 in every further stage


EncoderKind = Literal["plain", "residual", "resnet34", "resnet50"]
Upsampling = Literal["transposed", "overlapping"]

_WORDS = {
    "encoder": EncoderKind,
    "norm": Norm,
    "upsampling": Upsampling,
    "encoder_attention": Attention,
    "decoder_attention": Attention,
}


@dataclass(frozen=True)
class UNetSettings:
    """One entry per stage, full resolution first; triples are (z, y, x).

    convs_per_stage counts convolutions (plain) or blocks of two (residual) in each encoder stage, decoder_convs
    convolutions in each decoder stage. The encoders resnet34 and resnet50 have layers of their own, and nothing at
    full resolution: kernels and the first of features are there for stems and decoder. stems is in how many stages,
    from the full resolution on, two convolutions look at the image itself, beside the encoder. decoder_features are
    one fewer than features, which stand in where it is None.
    """

    features: tuple[int, ...]
    kernels: tuple[Shape3, ...]
    strides: tuple[Shape3, ...]
    convs_per_stage: int | tuple[int, ...] = 2
    decoder_convs: int = 2
    encoder: EncoderKind = "plain"
    deep_supervision: bool = True
    norm: Norm = "instance"
    upsampling: Upsampling = "transposed"
    decoder_features: tuple[int, ...] | None = None
    stems: int = 0
    encoder_attention: Attention = "none"
    decoder_attention: Attention = "none"

    def __post_init__(self) -> None:
        lengths = (len(self.features), len(self.kernels), len(self.strides), len(self.convs))
        if min(lengths) < 2 or len(set(lengths)) > 1:
            raise ValueError(
                f"features, kernels, strides and convs_per_stage need one entry per stage and two stages or more, "
                f"got {lengths} entries"
            )
        if min(self.features) < 1 or min(self.convs) < 1 or self.decoder_convs < 1:
            raise ValueError("features, convs_per_stage and decoder_convs must be 1 or more")
        if any(len(k) != 3 or min(k) < 1 or any(edge % 2 == 0 for edge in k) for k in self.kernels):
            raise ValueError(f"kernels must be odd triples (z, y, x), got {[tuple(k) for k in self.kernels]}")
        if any(len(s) != 3 or min(s) < 1 for s in self.strides) or tuple(self.strides[0]) != ONE:
            raise ValueError(
                f"strides must be positive triples (z, y, x), the first (1, 1, 1), "
                f"got {[tuple(s) for s in self.strides]}"
            )
        self._check_additions()

    def _check_additions(self) -> None:
        stages, maps = len(self.features), MAPS.get(self.encoder)
        for name, kind in _WORDS.items():
            if getattr(self, name) not in get_args(kind):
                raise ValueError(f"{name}: expected {' or '.join(get_args(kind))}, got {getattr(self, name)!r}")
        if not 0 <= self.stems < stages:
            raise ValueError(f"stems must be 0 to {stages - 1}, fewer than there are stages, got {self.stems}")
        if len(self.out_features) != stages - 1 or min(self.out_features) < 1:
            raise ValueError(
                f"decoder_features must be {stages - 1} channels, one fewer than features, each 1 or more, "
                f"got {list(self.out_features)}"
            )
        if maps and self.features[1:] != maps:
            raise ValueError(
                f"features of the encoder {self.encoder} are {list(maps)} behind the first, got {list(self.features)}"
            )

    @property
    def convs(self) -> tuple[int, ...]:
        """convs_per_stage, written out."""
        many = self.convs_per_stage
        return many if isinstance(many, tuple) else (many,) * len(self.features)

    @property
    def out_features(self) -> tuple[int, ...]:
        """decoder_features, written out: full resolution first, without the lowest stage."""
        return self.features[:-1] if self.decoder_features is None else self.decoder_features


def unet_settings_for(
    patch: Shape3,
    spacing: Spacing,
    *,
    encoder: Literal["plain", "residual"] = "plain",
    base_features: int = 32,
    max_features: int = 320,
) -> UNetSettings:
    """nnU-Net's rule: stages, kernels and strides for a patch (voxels) at a spacing (mm).

    An axis is halved while its edge stays at least 4 and its spacing is within a factor of 2 of
    the finest one that can still be halved (an axis alone: from an edge of 12 on). Its kernel is 1
    until its spacing comes within that factor, and 3 from there on; an edge of 1 keeps kernel 1.
    The residual encoder has the blocks of nnU-Net's ResEnc presets and a decoder of single
    convolutions. The patch need not be a multiple of required_multiple: round it up.

    Raises:
        ValueError: if no axis can be halved.
    """
    edges, sizes = list(patch), [float(s) for s in spacing]
    deep = [axis for axis in range(3) if patch[axis] > 1]
    kernel = [1, 1, 1]
    kernels: list[Shape3] = []
    strides = [ONE]
    while True:
        can = [axis for axis in range(3) if edges[axis] >= 2 * MIN_EDGE]
        pool = _comparable(can, sizes)
        if not kernels and _too_short_alone(pool, edges):
            # One short fine axis does not keep the others from being halved at all.
            pool = _comparable([axis for axis in can if axis not in pool], sizes)
        if _too_short_alone(pool, edges):
            break
        finest = min(sizes[axis] for axis in deep)
        kernel = [3 if kernel[axis] == 3 or (axis in deep and sizes[axis] < 2 * finest) else 1 for axis in range(3)]
        kernels.append(Shape3(*kernel))
        strides.append(Shape3(*(2 if axis in pool else 1 for axis in range(3))))
        for axis in pool:
            edges[axis], sizes[axis] = -(-edges[axis] // 2), 2 * sizes[axis]
    if not kernels:
        raise ValueError(
            f"no axis of a patch (z, y, x) = {tuple(patch)} can be halved: "
            "give two axes of similar spacing 8 voxels or more, or one 12"
        )
    kernels.append(Shape3(*(3 if axis in deep else 1 for axis in range(3))))
    features = tuple(min(max_features, base_features * 2**stage) for stage in range(len(strides)))
    if encoder == "plain":
        return UNetSettings(features, tuple(kernels), tuple(strides))
    blocks = (*RESIDUAL_BLOCKS, *[RESIDUAL_BLOCKS[-1]] * len(features))[: len(features)]
    return UNetSettings(features, tuple(kernels), tuple(strides), blocks, 1, encoder)


def _comparable(axes: list[int], sizes: list[float]) -> list[int]:
    """Those whose spacing is within a factor of 2 of the finest one's."""
    return [axis for axis in axes if sizes[axis] < 2 * min(sizes[a] for a in axes)]


def _too_short_alone(pool: list[int], edges: list[int]) -> bool:
    return not pool or (len(pool) == 1 and edges[pool[0]] < 3 * MIN_EDGE)


def required_multiple(settings: UNetSettings) -> Shape3:
    """What a patch's edges (z, y, x) must be multiples of: the product of the strides."""
    return Shape3(*(prod(axis) for axis in zip(*settings.strides, strict=True)))
