"""Room 11: the second stage's heads (Fast R-CNN, section 2; FPN, section 4.2).

Letters: M RoIs of the whole batch, C channels, P output side, K classes.

RoI features lie in memory as (M, P, P, C). The fully connected heads read them in that order, without a copy;
weights from elsewhere, whose first layer reads (C, P, P), are permuted once by their importers.
"""

from __future__ import annotations

from torch import Tensor, nn

from frcnn.config import RoiConfig
from frcnn.model.products import Linear
from frcnn.model.winograd import Conv3x3


class TwoFc(nn.Module):
    """Two fully connected layers with ReLU: the head of FPN, and with dropout and 4,096 units that of
    VGG16.
    """

    def __init__(self, in_features: int, width: int, dropout: float) -> None:
        """Build for flattened features."""
        super().__init__()
        self.fc6 = Linear(in_features, width)
        self.fc7 = Linear(width, width)
        self.dropout = nn.Dropout(dropout)
        self.relu = nn.ReLU(inplace=True)
        self.out_features = width

    def forward(self, pooled: Tensor) -> Tensor:
        """(M, C, P, P) -> (M, width)."""
        flat = pooled.permute(0, 2, 3, 1).flatten(1)  # (M, P P C): a view
        hidden = self.dropout(self.relu(self.fc6(flat)))
        return self.dropout(self.relu(self.fc7(hidden)))


class ConvFc(nn.Module):
    """Convolutions with batch norm, then one fully connected layer (torchvision's v2 box head)."""

    def __init__(self, in_channels: int, size: int, convs: int, width: int) -> None:
        """Build for (C, P, P) features."""
        super().__init__()
        layers: list[nn.Module] = []
        for i in range(convs):
            conv = Conv3x3(in_channels if i == 0 else 256, 256, bias=False)
            nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
            layers += [conv, nn.BatchNorm2d(256), nn.ReLU(inplace=True)]
        self.convs = nn.Sequential(*layers)
        self.fc = Linear((256 if convs else in_channels) * size * size, width)
        self.relu = nn.ReLU(inplace=True)
        self.out_features = width

    def forward(self, pooled: Tensor) -> Tensor:
        """(M, C, P, P) -> (M, width)."""
        hidden = self.convs(pooled)
        return self.relu(self.fc(hidden.permute(0, 2, 3, 1).flatten(1)))


class Convs(nn.Module):
    """Convolutions with ReLU and nothing after them (reference system S2)."""

    def __init__(self, in_channels: int, size: int, convs: int, width: int) -> None:
        """Build for (C, P, P) features."""
        super().__init__()
        layers: list[nn.Module] = []
        for i in range(convs):
            conv = Conv3x3(in_channels if i == 0 else width, width)
            nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
            layers += [conv, nn.ReLU(inplace=True)]
        self.convs = nn.Sequential(*layers)
        self.out_features = (width if convs else in_channels) * size * size

    def forward(self, pooled: Tensor) -> Tensor:
        """(M, C, P, P) -> (M, width P P)."""
        hidden: Tensor = self.convs(pooled)
        return hidden.permute(0, 2, 3, 1).flatten(1)


class BoxHead(nn.Module):
    """RoI features to class logits and box deltas."""

    def __init__(self, in_channels: int, num_classes: int, config: RoiConfig) -> None:
        """Build for features of ``in_channels`` and K classes; background is column K."""
        super().__init__()
        size = config.output_size
        self.trunk: TwoFc | ConvFc | Convs
        if config.head == "conv_fc":
            self.trunk = ConvFc(in_channels, size, config.convs, config.hidden)
        elif config.head == "conv":
            self.trunk = Convs(in_channels, size, config.convs, config.conv_channels)
        else:
            self.trunk = TwoFc(in_channels * size * size, config.hidden, config.dropout)
        self.box_classes = {"per_class": num_classes, "agnostic": 1, "none": 0}[config.box_regression]
        self.classes = Linear(self.trunk.out_features, num_classes + 1)
        # Fast R-CNN, section 2.3: N(0, 0.01) for classes, N(0, 0.001) for boxes
        nn.init.normal_(self.classes.weight, std=0.01)
        nn.init.zeros_(self.classes.bias)
        self.deltas: Linear | None = None
        if self.box_classes:
            self.deltas = Linear(self.trunk.out_features, self.box_classes * 4)
            nn.init.normal_(self.deltas.weight, std=0.01 if config.head == "vgg" else 0.001)
            nn.init.zeros_(self.deltas.bias)

    def forward(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """(M, C, P, P) -> class logits (M, K + 1) and deltas (M, K, 1 or 0, 4), float32."""
        hidden = self.trunk(pooled)
        if self.deltas is None:
            logits = self.classes(hidden).float()
            return logits, logits.new_zeros(len(logits), 0, 4)
        deltas = self.deltas(hidden).float().view(-1, self.box_classes, 4)
        return self.classes(hidden).float(), deltas
