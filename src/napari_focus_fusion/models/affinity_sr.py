"""Focus affinity and super-resolution embedding: fusing and enlarging in one.

H. Li, M. Yuan, J. Li, Y. Liu, G. Lu, Y. Xu, Z. Yu, D. Zhang, "Focus Affinity Perception
and Super-Resolution Embedding for Multifocus Image Fusion", IEEE Transactions on Neural
Networks and Learning Systems, 2024 (10.1109/TNNLS.2024.3367782). Three networks: FAPN
finds what is in focus (section III-A), SRN makes each slice finer (III-B), and what it
makes of the slices is fused with FAPN's masks and decoded (III-C). Equation numbers are
the paper's.

Where the paper's text and what its authors released contradict each other, this follows
the release: one convolution after the affinity's product instead of two, features of
three channels, a focus head of one 3x3 convolution and four 1x1, dense blocks without a
skip of their own, and attention on the sum of shallow and deep features (eq. 11 reads
otherwise).

What differs from both, in every configuration:

- SAM multiplies whole rows with each other (eq. 4), which depends on the width of the
  picture. Here a row is a window around the pixel, compared with the rows just above
  and below, and the products are means.
- CAM pools a whole picture (eq. 6). Here it pools a sample of all slices, once.
- One SRN for all slices; its trunk is shared by x2, x3 and x4.
- The kernels of the deconvolutions are centred on the source's pixel, so that nothing
  moves.

:data:`LIGHT`, which the shipped weights belong to, is narrower than the paper's
:data:`FULL`, and adds the interpolated slice to SRN's features: the network only has to
find what interpolation misses.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_focus_fusion.filters import line_sum
from napari_focus_fusion.models.base import PairMasker, SuperResolver

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Channels of FAPN's features, and of SRN's.
FEATURES = 3
#: Slope of the leaky ReLUs.
SLOPE = 0.2


@dataclass(frozen=True, slots=True)
class AffinitySRConfig:
    """Sizes of the networks, and which parts of them there are.

    Attributes
    ----------
    focus_inputs
        Channels of the slices that FAPN sees: 3, or 1 for grey alone.
    path
        Hidden channels of the 3x3 and of the 5x5 path (eq. 1).
    branch
        Hidden channels of a branch of SAM.
    reach, rows
        Half the length of SAM's windows, and rows above and below that it sees.
    near, far
        Channels of the 3x3 and the 5x5 convolutions of eq. 8.
    refine
        Steps of refinement (eq. 9); 0 for none, the rest of the network as it is.
    head
        Channels on the way from the refined features to the two masks.
    width, growth, dense, blocks
        SRN's channels; channels that each dense convolution adds, their number, and
        the number of blocks.
    embed
        Hidden channels of the shallow-deep attention (eq. 10).
    lift
        Convolutions before the deconvolution.
    fine
        Channels on the finer grid.
    scales
        Factors with a head of their own.
    skip
        Whether the interpolated slice is added to SRN's features.
    rectify
        Whether the fused image ends at black (D2's ReLU).
    affinity, attention, shallow_deep, gradient
        The parts of the paper's tables II and IV: AEM; what attends, in which order
        (``"spatial"``, ``"channel"``); the attention of eq. 10; the gradient branch.
    """

    focus_inputs: int = 1
    path: tuple[int, ...] = (12, 12)
    branch: tuple[int, ...] = (6,)
    reach: int = 8
    rows: int = 4
    near: tuple[int, ...] = (12, 12)
    far: tuple[int, ...] = (8, 12)
    refine: int = 10
    head: tuple[int, ...] = (8,)
    width: int = 16
    growth: int = 16
    dense: int = 2
    blocks: int = 4
    embed: tuple[int, ...] = (8,)
    lift: int = 1
    fine: tuple[int, ...] = (8,)
    scales: tuple[int, ...] = (2, 3, 4)
    skip: bool = True
    rectify: bool = False
    affinity: bool = True
    attention: tuple[str, ...] = ("spatial", "channel")
    shallow_deep: bool = True
    gradient: bool = True

    @property
    def focus_halo(self) -> int:
        """How many pixels around a pixel FAPN sees."""
        enhanced = 2 * (len(self.path) + 1) + 2 * self.affinity
        if "spatial" in self.attention:
            enhanced += len(self.branch) + 1 + max(self.reach, self.rows) + 2
        return (
            enhanced + max(2 * len(self.far), len(self.near)) + max(self.refine, 1) + 1
        )

    @property
    def upscale_halo(self) -> int:
        """How many of the slice's pixels around a pixel SRN and D2 see."""
        # With the gradient branch: its map, its convolution, its first block.
        stem = 4 + self.dense if self.gradient else 2
        trunk = stem + self.blocks * self.dense + 1 + self.lift
        if self.shallow_deep:
            trunk += len(self.embed) + 1
        return trunk + max(_head_reach(self, scale) for scale in self.scales)


#: Kernel, stride and padding of the deconvolutions of each factor. All kernels are
#: centred on the source's pixel.
DECONVOLUTIONS = {2: ((4, 2, 1),), 3: ((3, 3, 0),), 4: ((4, 2, 1), (4, 2, 1))}


def _head_reach(config: AffinitySRConfig, scale: int) -> int:
    """Pixels around a pixel, on the source's grid, that its finer ones depend on."""
    fine = len(config.fine) + config.gradient
    low, high = -fine, scale - 1 + fine
    for kernel, stride, padding in DECONVOLUTIONS[scale]:
        low = -((kernel - 1 - padding - low) // stride)
        high = (high + padding) // stride
    return max(-low, high)


#: What is shipped: some 53 000 multiply-adds a pixel and pair, 100 000 a slice.
LIGHT = AffinitySRConfig()
#: The widths of the release: 1.2 and 1.6 million of each, and as many parameters.
FULL = AffinitySRConfig(
    focus_inputs=3,
    path=(32, 64, 32),
    branch=(32, 64, 32, FEATURES),
    near=(32, 64),
    far=(32, 64, 64),
    head=(32, 16, 3, 2),
    width=32,
    growth=32,
    dense=3,
    blocks=10,
    embed=(32, 16),
    lift=2,
    fine=(32, 32, 16),
    skip=False,
    rectify=True,
)


class Gates(NamedTuple):
    """What CAM multiplies the 3x3 and the 5x5 features with, (features,) each."""

    near: Tensor
    far: Tensor


class AffinitySR(PairMasker, SuperResolver):
    """The pipeline of the paper's figure 1.

    Parameters
    ----------
    config
        Sizes and parts; the shipped weights fit :data:`LIGHT`.
    """

    window: ClassVar[int] = 3
    needs_sample: ClassVar[bool] = True
    feature_channels: ClassVar[int] = FEATURES
    upscale_halo: ClassVar[int] = LIGHT.upscale_halo

    def __init__(self, config: AffinitySRConfig = LIGHT) -> None:
        super().__init__()
        self.config = config
        self.upscale_halo = config.upscale_halo  # type: ignore[misc]
        self.fapn = FAPN(config)
        self.srn = SRN(config)
        # So laid out, convolutions of few channels take a third less on a CPU.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def context(self, sample: Sequence[Tensor]) -> Gates | None:
        """CAM's gates, from the features of all slices; None without CAM."""
        if "channel" not in self.config.attention:
            return None
        # Sorted, so that the order of the slices does not change the sum.
        means = torch.stack([self.fapn.means(x) for x in sample])
        return self.fapn.gates(means.sort(0).values.mean(0)[:, None])

    def mask(self, a: Tensor, b: Tensor, context: Any = None) -> Tensor:
        """Half of how far the first mask is above the second, plus a half.

        The two masks need not add up to 1.
        """
        masks = self.fapn(a, b, context)
        return (1 + masks[:, 0] - masks[:, 1]) / 2

    def features(self, slices: Tensor, scale: int, context: Any = None) -> Tensor:
        """SRN's features of each slice, eq. 12; grey slices are seen as RGB."""
        return self.srn(slices.expand(-1, FEATURES, -1, -1), scale)

    def enlarge(self, slices: Tensor, scale: int) -> Tensor:
        """Each slice made finer on its own, eq. 13: what SRN is trained with.

        Parameters
        ----------
        slices
            (N, C, h, w); C is 1 or 3.
        scale
            2, 3 or 4.

        Returns
        -------
        Tensor
            (N, 3, scale * h, scale * w).
        """
        return self.srn.head(scale).d1(self.features(slices, scale))

    def resolve(self, features: Tensor, scale: int, context: Any = None) -> Tensor:
        """The fused picture, eq. 16."""
        picture: Tensor = self.srn.head(scale).d2(features)
        return F.relu(picture) if self.config.rectify else picture

    def fuse(
        self, slices: Tensor, masks: Tensor, scale: int, context: Any = None
    ) -> Tensor:
        """Slices fused on the finer grid, eq. 15 and 16.

        The masks' sum is divided by: the paper's two are independent and need not add
        up to 1.

        Parameters
        ----------
        slices
            (B, N, C, h, w).
        masks
            (B, N, h, w), at least 0.
        scale, context
            As :meth:`features` takes them.

        Returns
        -------
        Tensor
            (B, 3, scale * h, scale * w).
        """
        finer = self.features(slices.flatten(0, 1), scale, context)
        finer = finer.unflatten(0, slices.shape[:2])
        weights = F.interpolate(masks, scale_factor=scale, mode="bilinear")
        weights = weights / weights.sum(1, keepdim=True).clamp_min(1e-3)
        fused = (weights[:, :, None] * finer).sum(1)
        return self.resolve(fused, scale, context)


# --- Focus affinity perception network, section III-A


class FAPN(nn.Module):
    """Finds which of two images is in focus: figures 2 and 3."""

    def __init__(self, config: AffinitySRConfig) -> None:
        super().__init__()
        c, self.config = FEATURES, config
        # III-A1: the same for both images.
        widths = (config.focus_inputs, *config.path, c)
        self.paths = nn.ModuleList(convolutions(widths, size) for size in (3, 5))
        self.affinity = (
            nn.Sequential(conv(c, 16, 3), nn.ReLU(), conv(16, c, 3), nn.ReLU())
            if config.affinity
            else None
        )
        self.weigh = conv(c, c, 1) if config.affinity else None
        count = 2 if "spatial" in config.attention else 0
        self.spatial = nn.ModuleList(SpatialAttention(config) for _ in range(count))
        count = 2 if "channel" in config.attention else 0
        self.channel = nn.ModuleList(ChannelAttention() for _ in range(count))
        # III-A2.
        self.near = convolutions((4 * c, *config.near), 3, slope=None)
        self.far = convolutions((4 * c, *config.far), 5)
        both = config.near[-1] + config.far[-1]
        # Without refinement one convolution brings the two together.
        self.refine = nn.ModuleList(
            conv(both, config.near[-1], 3) for _ in range(max(config.refine, 1))
        )
        # One for all steps, as released.
        self.normalise = nn.BatchNorm2d(config.near[-1]) if config.refine else None
        self.head = nn.Sequential(
            conv(config.near[-1], config.head[0], 3),
            *(conv(m, n, 1) for m, n in pairwise((*config.head, 2))),
        )
        # Signals keep their size here. In SRN, whose dense blocks would make them grow,
        # the weights stay as small as PyTorch makes them.
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_uniform_(module.weight, SLOPE)

    def forward(self, a: Tensor, b: Tensor, gates: Gates | None = None) -> Tensor:
        """The masks M_1 and M_2, each on its own in (0, 1).

        Parameters
        ----------
        a, b
            (B, 1, h, w), or (B, 3, h, w) if there are three inputs.
        gates
            CAM's; None to take them from each pair, as in training.

        Returns
        -------
        Tensor
            (B, 2, h, w).
        """
        near, far = self.enhance(torch.cat([a, b]), gates)
        pair = torch.cat([*near.chunk(2), *far.chunk(2)], 1)  # eq. 7
        x, y = self.near(pair), torch.sigmoid(self.far(pair))  # eq. 8
        if self.normalise is None:
            x = self.refine[0](torch.cat([x, y], 1))
        else:
            for convolution in self.refine:  # eq. 9
                step = F.relu(convolution(torch.cat([x, y], 1)))
                x = x + self.normalise(torch.sigmoid(step))
        return torch.sigmoid(self.head(x))

    def enhance(
        self, images: Tensor, gates: Gates | None = None
    ) -> tuple[Tensor, Tensor]:
        """Features under the small and the large receptive field, eq. 1 to 6.

        Parameters
        ----------
        images
            (2 B, 1 or 3, h, w): all first images, then all second ones.
        gates
            As :meth:`forward` takes them.

        Returns
        -------
        near, far : Tensor
            (2 B, features, h, w) each.
        """
        near, far, weight = self._affine(images)
        for name in self.config.attention:
            if name == "spatial":
                near, far = self._attend(near, far)
                continue
            if gates is None:
                means = torch.stack([_means_of_pairs(near), _means_of_pairs(far)])
                gates = self.gates(means)
            near = near + near * weight * gates.near[..., None, None]  # eq. 6
            far = far + far * weight * gates.far[..., None, None]
        return near, far

    def means(self, images: Tensor) -> Tensor:
        """What CAM pools: (2, features) of images (B, 1 or 3, h, w).

        As far as there is something left, without what lies within reach of the border.
        """
        near, far, _ = self._affine(images)
        if self.config.attention[0] == "spatial":
            near, far = self._attend(near, far)
        rim = min(8, min(images.shape[-2:]) // 4)
        inner = (..., slice(rim, -rim or None), slice(rim, -rim or None))
        return torch.stack([maps[inner].mean((0, 2, 3)) for maps in (near, far)])

    def gates(self, means: Tensor) -> Gates:
        """CAM's gates (B, features) from means (2, B, features)."""
        near, far = (cam(x) for cam, x in zip(self.channel, means, strict=True))
        return Gates(near, far)

    def _affine(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor | float]:
        """Eq. 1 to 3, and the affinity map."""
        x = images.expand(-1, self.config.focus_inputs, -1, -1)
        near, far = (path(x) for path in self.paths)
        if self.affinity is None or self.weigh is None:
            return near, far, 1.0
        weight = torch.sigmoid(self.weigh(self.affinity(near * far)))
        return near + near * weight, far + far * weight, weight

    def _attend(self, near: Tensor, far: Tensor) -> tuple[Tensor, Tensor]:
        """Eq. 4 and 5."""
        first, second = self.spatial
        return near + near * first(near), far + far * second(far)


def _means_of_pairs(maps: Tensor) -> Tensor:
    """(2 B, c, h, w) -> (2 B, c), the mean over both images of a pair."""
    return maps.mean((2, 3)).unflatten(0, (2, -1)).mean(0).repeat(2, 1)


class SpatialAttention(nn.Module):
    """SAM: attention from how rows of two maps resemble each other."""

    def __init__(self, config: AffinitySRConfig) -> None:
        super().__init__()
        self.reach, self.rows = config.reach, config.rows
        widths = (FEATURES, *config.branch, 1)
        self.first, self.second = (convolutions(widths, 3) for _ in "12")
        self.merge = nn.Sequential(
            conv(2, 16, 3), nn.ReLU(), conv(16, FEATURES, 3), nn.ReLU()
        )
        self.weigh = conv(FEATURES, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, features, h, w) -> (B, 1, h, w) in (0, 1)."""
        products = row_products(self.first(x), self.second(x), self.reach, self.rows)
        return torch.sigmoid(self.weigh(self.merge(products)))


def row_products(first: Tensor, second: Tensor, reach: int, rows: int) -> Tensor:
    """Eq. 4 within windows around each pixel.

    The paper multiplies whole pictures: ``S = F2 F1^T`` says how much row i of the
    second resembles row j of the first, and ``S F1``, ``S F2`` mix the rows by that.
    Here the rows are ``2 * reach + 1`` pixels long, j runs over the ``2 * rows + 1``
    rows around i, and both sums are means.

    Parameters
    ----------
    first, second
        (B, 1, h, w).
    reach, rows
        Half the window's width and height.

    Returns
    -------
    Tensor
        (B, 2, h, w).
    """
    height, length = first.shape[-2], 2 * reach + 1
    shifts = range(2 * rows + 1)

    def shifted(maps: Tensor) -> Tensor:
        around = F.pad(maps[:, 0], (0, 0, rows, rows))
        return torch.stack([around[:, i : i + height] for i in shifts], 1)

    of_first, of_second = shifted(first), shifted(second)
    product = F.pad(second * of_first, (reach, reach))
    similarity = line_sum(product, length, -1) / (length * len(shifts))
    mixed = [(similarity * maps).sum(1) for maps in (of_first, of_second)]
    return torch.stack(mixed, 1)


class ChannelAttention(nn.Module):
    """CAM: a gate for each channel from the means of all."""

    def __init__(self) -> None:
        super().__init__()
        self.squeeze = nn.Linear(FEATURES, FEATURES, bias=False)
        self.excite = nn.Linear(FEATURES, FEATURES, bias=False)

    def forward(self, means: Tensor) -> Tensor:
        """(B, features) -> (B, features) in (0, 1)."""
        return torch.sigmoid(self.excite(F.relu(self.squeeze(means))))


# --- Super-resolution network, section III-B


class SRN(nn.Module):
    """Makes a picture finer: figure 4."""

    def __init__(self, config: AffinitySRConfig) -> None:
        super().__init__()
        width, self.config = config.width, config
        self.image = conv(FEATURES, width, 3)
        self.edges = conv(1, width, 3) if config.gradient else None
        both = width * (2 if config.gradient else 1)
        self.shallow = conv(both, width, 3)
        self.gradient = conv(width, width, 3) if config.gradient else None
        count = config.blocks if config.gradient else 0
        self.gradient_blocks = nn.ModuleList(
            DenseBlock(width, config) for _ in range(count)
        )
        self.blocks = nn.ModuleList(
            DenseBlock(both, config) for _ in range(config.blocks)
        )
        self.gather = nn.Sequential(
            conv(config.blocks * width + both, width, 1), conv(width, width, 3)
        )
        self.attention = (
            convolutions((2 * width, *config.embed, 1), 3)
            if config.shallow_deep
            else None
        )
        lift = [conv(width, width, 3) for _ in range(config.lift)]
        self.lift = nn.Sequential(
            *(m for layer in lift for m in (layer, nn.LeakyReLU(SLOPE)))
        )
        self.heads = nn.ModuleDict({str(s): Head(config, s) for s in config.scales})

    def head(self, scale: int) -> Head:
        """What follows the trunk for one factor."""
        head = self.heads[str(scale)]
        assert isinstance(head, Head)
        return head

    def forward(self, image: Tensor, scale: int) -> Tensor:
        """F_SRN with the gradient embedded, eq. 12.

        Parameters
        ----------
        image
            (B, 3, h, w).
        scale
            One of those with a head.

        Returns
        -------
        Tensor
            (B, 3, scale * h, scale * w).
        """
        x = self.image(image)
        edges = None
        if self.edges is None or self.gradient is None:
            shallow = self.shallow(x)
            x, outputs = shallow, []
            for block in self.blocks:
                x = block(x)
                outputs.append(x)
        else:
            edges = laplacian(image)
            shallow = self.shallow(torch.cat([x, self.edges(edges)], 1))
            x, g, outputs = shallow, self.gradient(shallow), []
            pairs = zip(self.gradient_blocks, self.blocks, strict=True)
            for of_gradient, block in pairs:
                g = of_gradient(g)
                x = block(torch.cat([g, x], 1))
                outputs.append(x)
            x = torch.cat([g, x], 1)
        deep = self.gather(torch.cat([*outputs, x], 1))
        if self.attention is None:
            mixed = deep
        else:
            weight = torch.sigmoid(self.attention(torch.cat([shallow, deep], 1)))
            mixed = (deep + shallow) * (1 + weight)  # eq. 10 and 11
        found: Tensor = self.head(scale)(self.lift(mixed), edges)
        return found + interpolate(image, scale) if self.config.skip else found


class DenseBlock(nn.Module):
    """Convolutions that see all before them, brought together by a 1x1."""

    def __init__(self, inputs: int, config: AffinitySRConfig) -> None:
        super().__init__()
        growth, last = config.growth, inputs + config.dense * config.growth
        self.dense = nn.ModuleList(
            conv(inputs + i * growth, growth, 3) for i in range(config.dense)
        )
        self.gather = conv(last, config.width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, h, w) -> (B, width, h, w)."""
        for convolution in self.dense:
            x = torch.cat([x, F.relu(convolution(x))], 1)
        return self.gather(x)


class Head(nn.Module):
    """From the source's grid to a finer one, and the decoders there."""

    def __init__(self, config: AffinitySRConfig, scale: int) -> None:
        super().__init__()
        self.scale, widths = scale, (config.width, config.fine[0], config.fine[0])
        layers: list[nn.Module] = []
        for (m, n), sizes in zip(pairwise(widths), DECONVOLUTIONS[scale], strict=False):
            layers += [nn.ConvTranspose2d(m, n, *sizes), nn.LeakyReLU(SLOPE)]
        self.deconvolve = nn.Sequential(*layers)
        self.fine = convolutions((*config.fine, FEATURES), 3)
        self.embed = conv(FEATURES + 1, FEATURES, 3) if config.gradient else None
        self.d1 = conv(FEATURES, FEATURES, 3)
        self.d2 = conv(FEATURES, FEATURES, 1)
        if config.skip:
            # An untrained network then interpolates, in every scale.
            last = self.embed if self.embed is not None else self.fine[-1]
            assert isinstance(last, nn.Conv2d)
            nn.init.zeros_(last.weight)
            _make_identity(self.d1)
            _make_identity(self.d2)

    def forward(self, x: Tensor, edges: Tensor | None) -> Tensor:
        """(B, width, h, w) and edges (B, 1, h, w) -> (B, 3, scale * h, scale * w)."""
        y = self.fine(self.deconvolve(x))
        if self.embed is None or edges is None:
            return y
        return self.embed(torch.cat([y, interpolate(edges, self.scale)], 1))


# --- What both use


def conv(inputs: int, outputs: int, size: int) -> nn.Conv2d:
    """A convolution that keeps the size; zeros lie around the picture."""
    layer = nn.Conv2d(inputs, outputs, size, padding=size // 2)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer


def convolutions(
    widths: Sequence[int], size: int, slope: float | None = SLOPE
) -> nn.Sequential:
    """Convolutions with leaky ReLUs in between, or with nothing."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        if layers and slope is not None:
            layers.append(nn.LeakyReLU(slope))
        layers.append(conv(inputs, outputs, size))
    return nn.Sequential(*layers)


def _make_identity(layer: nn.Conv2d) -> None:
    nn.init.dirac_(layer.weight)


def laplacian(image: Tensor) -> Tensor:
    """The gradient map: (B, c, h, w) -> (B, 1, h, w).

    Eight times each pixel less its neighbours, the mean over the channels.
    """
    kernel = image.new_full((1, 1, 3, 3), -1.0)
    kernel[0, 0, 1, 1] = 8
    return F.conv2d(image.mean(1, keepdim=True), kernel, padding=1)


def interpolate(image: Tensor, scale: int) -> Tensor:
    """Cubic interpolation (Keys 1981), pixels taken as areas.

    Every pixel of the source becomes ``scale**2`` finer ones by the same arithmetic
    wherever it lies, which interpolation by coordinates does not promise.

    Parameters
    ----------
    image
        (B, c, h, w).
    scale
        At least 2.

    Returns
    -------
    Tensor
        (B, c, scale * h, scale * w).
    """
    count, channels = image.shape[:2]
    around = F.pad(image.flatten(0, 1)[:, None], (2, 2, 2, 2), mode="replicate")
    finer = F.conv2d(around, _cubic_kernels(scale).to(image))
    return F.pixel_shuffle(finer, scale).unflatten(0, (count, channels))[:, :, 0]


@cache
def _cubic_kernels(scale: int) -> Tensor:
    """(scale^2, 1, 5, 5): the kernel of each finer pixel of a pixel."""
    finer = (torch.arange(scale, dtype=torch.float64) + 0.5) / scale - 0.5
    x = (finer[:, None] - torch.arange(-2, 3)).abs()
    close = 1.5 * x**3 - 2.5 * x**2 + 1
    wide = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    line = torch.where(x < 1, close, torch.where(x < 2, wide, torch.zeros_like(x)))
    return torch.einsum("iy,jx->ijyx", line, line).reshape(-1, 1, 5, 5)
