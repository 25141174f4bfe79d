"""EfficientNet-Lite0 (Tan and Le 2019, arXiv 1905.11946; Lite: without squeeze and excitation, with ReLU6)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

#: (blocks, kernel, stride of the first one, expansion, channels) of each stage.
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
STEM, HEAD, CLASSES = 32, 1280, 1000
#: Of batch normalisation, as in TensorFlow, where it was trained.
EPS = 1e-3


class SameConv(nn.Conv2d):
    """A convolution padded as TensorFlow does it: what is odd goes to the right and below."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(inputs, outputs, kernel, stride, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, outputs, ceil(H / stride), ceil(W / stride))."""
        kernel, stride = self.kernel_size[0], self.stride[0]
        height, width = (max(0, (-(-side // stride) - 1) * stride + kernel - side) for side in x.shape[-2:])
        return super().forward(F.pad(x, (width // 2, width - width // 2, height // 2, height - height // 2)))


class Block(nn.Module):
    """An inverted residual: expand, filter each channel, project."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = inputs * expansion
        self.expands = expansion > 1
        if self.expands:
            self.expand_conv = SameConv(inputs, inner, 1)
            self.bn0 = nn.BatchNorm2d(inner, EPS)
        self.depthwise_conv = SameConv(inner, inner, kernel, stride, groups=inner)
        self.bn1 = nn.BatchNorm2d(inner, EPS)
        self.project_conv = SameConv(inner, outputs, 1)
        self.bn2 = nn.BatchNorm2d(outputs, EPS)
        self.is_residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) to (N, outputs, H / stride, W / stride)."""
        inner = F.relu6(self.bn0(self.expand_conv(x))) if self.expands else x
        inner = F.relu6(self.bn1(self.depthwise_conv(inner)))
        out: Tensor = self.bn2(self.project_conv(inner))
        return x + out if self.is_residual else out


class EfficientNetLite0(nn.Module):
    """Which of ImageNet's 1000 classes a picture shows."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_stem = SameConv(3, STEM, 3, 2)
        self.bn0 = nn.BatchNorm2d(STEM, EPS)
        self.blocks = nn.ModuleList()
        channels = STEM
        for count, kernel, stride, expansion, outputs in STAGES:
            for number in range(count):
                self.blocks.append(Block(channels, outputs, kernel, stride if number == 0 else 1, expansion))
                channels = outputs
        self.conv_head = SameConv(channels, HEAD, 1)
        self.bn1 = nn.BatchNorm2d(HEAD, EPS)
        self.fc = nn.Linear(HEAD, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, 1000) of pictures (N, 3, 224, 224), normalised."""
        x = F.relu6(self.bn0(self.conv_stem(x)))
        for block in self.blocks:
            x = block(x)
        x = F.relu6(self.bn1(self.conv_head(x)))
        logits: Tensor = self.fc(x.mean((2, 3)))
        return logits
