"""The 3D U-Net of pytorch-3dunet (layer order cbl, no sigmoid), which PyPI does not have, as plain PyTorch modules with
the same parameter names; instance norm and free pooling factors besides."""

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional


def _norm(kind: str, channels: int) -> tuple[str, nn.Module]:
    if kind == "batch":
        return "batchnorm", nn.BatchNorm3d(channels)
    return "instancenorm", nn.InstanceNorm3d(channels, affine=True)


def _single(inputs: int, outputs: int, norm: str) -> nn.Sequential:
    convolution = nn.Conv3d(inputs, outputs, 3, padding=1, bias=False)
    activation = nn.LeakyReLU(inplace=True)
    return nn.Sequential(OrderedDict([("conv", convolution), _norm(norm, outputs), ("LeakyReLU", activation)]))


class Double(nn.Module):
    """Two convolutions, each with norm and leaky ReLU, behind an optional max pooling."""

    def __init__(self, inputs: int, middle: int, outputs: int, norm: str, pooling: list[int] | None = None) -> None:
        super().__init__()
        self.pooling = None if pooling is None else nn.MaxPool3d(tuple(pooling))
        first, second = _single(inputs, middle, norm), _single(middle, outputs, norm)
        self.basic_module = nn.Sequential(OrderedDict([("SingleConv1", first), ("SingleConv2", second)]))

    def forward(self, x: Tensor) -> Tensor:
        return self.basic_module(x if self.pooling is None else self.pooling(x))


class UNet3D(nn.Module):
    """`settings` are those of configuration.py."""

    def __init__(self, settings: dict) -> None:
        super().__init__()
        levels, norm, last = settings["levels"], settings["norm"], settings["output_level"]
        channels = [settings["f_maps"] << level for level in range(levels)]
        poolings = [None, *settings["pooling"]]
        inputs = [1, *channels]
        self.encoders = nn.ModuleList(
            Double(inputs[level], max(channels[level] // 2, inputs[level]), channels[level], norm, poolings[level])
            for level in range(levels)
        )
        self.decoders = nn.ModuleList(
            Double(channels[level] + channels[level + 1], channels[level], channels[level], norm)
            for level in reversed(range(last, levels - 1))
        )
        self.final_conv = nn.Conv3d(channels[last], settings["output_channels"], 1)

    def forward(self, x: Tensor) -> Tensor:
        skips = []
        for encoder in self.encoders:
            x = encoder(x)
            skips.append(x)
        skips.pop()
        for decoder in self.decoders:
            skip = skips.pop()
            x = decoder(torch.cat([skip, functional.interpolate(x, size=skip.shape[2:], mode="nearest")], 1))
        return self.final_conv(x)
