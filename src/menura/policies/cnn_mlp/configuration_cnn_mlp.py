"""Settings of `CNNMLPPolicy`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from transformers import PretrainedConfig

from ..common.resnet import check_resnet, independent_norm

ENCODERS = ("small", "resnet")


class CNNMLPPolicyConfig(PretrainedConfig):
    """Settings of `CNNMLPPolicy`; the defaults make a network of about 113 000 parameters for one camera.

    Args:
        state_dim: width of the state, 0 for none; filled in from the data.
        action_dim: width of the action; filled in from the data.
        camera_names: the cameras, in order; filled in from the data. None or empty: an MLP on the state alone.
        image_size: (height, width) in pixels.
        image_normalize: how pixels are normalized.
        n_obs_steps: observations given, newest last.
        chunk_size: actions predicted.
        n_action_steps: actions executed before predicting again, at most `chunk_size`.
        encoder: `small`: three convolutions; `resnet`: a ResNet, trained with the rest.
        channels: points the encoder looks for in an image, and of the small one the feature maps; a multiple of 8.
        hidden_size: width of the two hidden layers.
        backbone_widths: feature maps of the ResNet's stages; the default with `backbone_depths` is ResNet-18.
        backbone_depths: blocks of each stage.
        pretrained_backbone: a Hub id or a directory of a `transformers` ResNet of these sizes, such as
            `microsoft/resnet-18`, to start from; None starts from random weights. It expects `imagenet` pixels.
        backbone_norm: as of `ACTPolicyConfig`: `group` or `frozen_batch`; None: `frozen_batch` for a pretrained ResNet.
    """

    model_type = "menura_cnn_mlp"

    def __init__(
        self,
        state_dim: int = 4,
        action_dim: int = 4,
        camera_names: Sequence[str] | None = None,
        image_size: Sequence[int] = (84, 84),
        image_normalize: str = "minus_one_one",
        n_obs_steps: int = 1,
        chunk_size: int = 8,
        n_action_steps: int = 4,
        encoder: str = "small",
        channels: int = 32,
        hidden_size: int = 256,
        backbone_widths: Sequence[int] = (64, 128, 256, 512),
        backbone_depths: Sequence[int] = (2, 2, 2, 2),
        pretrained_backbone: str | None = None,
        backbone_norm: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if channels < 8 or channels % 8:
            raise ValueError(f"expected channels to be a multiple of 8, got {channels}")
        if encoder not in ENCODERS:
            raise ValueError(f"expected encoder to be one of {', '.join(ENCODERS)}, got {encoder!r}")
        if pretrained_backbone is not None and encoder == "small":
            raise ValueError("expected encoder: resnet with a pretrained_backbone, got encoder: small, which has none")
        backbone_norm = independent_norm(backbone_norm, pretrained_backbone)
        check_resnet(backbone_widths, backbone_depths, backbone_norm, pretrained_backbone)
        if hidden_size < 1:
            raise ValueError(f"expected hidden_size of at least 1, got {hidden_size}")
        self.state_dim = state_dim
        self.action_dim = action_dim
        self.camera_names = None if camera_names is None else list(camera_names)
        self.image_size = image_size if isinstance(image_size, int) else list(image_size)
        self.image_normalize = image_normalize
        self.n_obs_steps = n_obs_steps
        self.chunk_size = chunk_size
        self.n_action_steps = n_action_steps
        self.encoder = encoder
        self.channels = channels
        self.hidden_size = hidden_size
        self.backbone_widths = list(backbone_widths)
        self.backbone_depths = list(backbone_depths)
        self.pretrained_backbone = pretrained_backbone
        self.backbone_norm = backbone_norm
