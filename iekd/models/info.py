"""What is known of a network without building it. No torch here."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ModelInfo:
    """Sizes of one network.

    params_base + channels * params_per_channel + classes * params_per_class is the number of parameters.
    macs: multiply-accumulates of one forward pass of a 3x32x32 image with 10 classes.
    activations: numbers stored for the backward pass of such an image.
    stage_channels, stage_strides: every stage's channels, and how much smaller than the image its map is (1 or more);
        none for a network that gives no maps, which only methods that look at logits alone can use.
    has_margins: the network has `stage_norms` (see features.py), from which margins follow.
    has_pre_activations: its Features have `pre_activations`.
    """

    name: str
    params_base: int
    params_per_channel: int
    params_per_class: int
    macs: int
    activations: int
    stage_channels: tuple[int, ...]
    stage_strides: tuple[int, ...]
    has_margins: bool
    has_pre_activations: bool = True

    @property
    def feature_channels(self) -> int:
        """The last stage's."""
        return self.stage_channels[-1]

    @property
    def feature_stride(self) -> int:
        """The last stage's."""
        return self.stage_strides[-1]

    def params(self, channels: int, classes: int) -> int:
        return self.params_base + channels * self.params_per_channel + classes * self.params_per_class


IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # mean and deviation of ImageNet's pixels, 0..1


@dataclass(frozen=True)
class Pretrained:
    """Weights that a library has for a network.

    title: what they are called, such as "timm/resnet18.a1_in1k". classes: outputs of their last layer; 0 without one.
    side: of the images that they were trained with. mean, std: of those, per channel, pixel values scaled to 0..1.
    repo: on the Hub, with "@revision" after it where one is meant; url: of the file, where it is not on the Hub.
    """

    title: str
    classes: int
    side: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    repo: str = ""
    url: str = ""
