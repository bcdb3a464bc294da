"""Settings of `DiffusionPolicy`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from transformers import PretrainedConfig

from ..common.resnet import check_resnet


class DiffusionPolicyConfig(PretrainedConfig):
    """Settings of `DiffusionPolicy`; defaults of Chi et al. 2023 (arXiv 2303.04137) as in the authors' configs
    (`train_diffusion_unet_hybrid_workspace.yaml`, `train_diffusion_transformer_hybrid_workspace.yaml`).

    The authors train with AdamW, batch size 64, learning rate 1e-4, betas 0.95 and 0.999, weight decay 1e-6, 500 steps
    of warmup and a cosine, and act with an average of the weights: the section `training: diffusion`.

    Args:
        state_dim: width of the state, 0 for none; filled in from the data.
        env_state_dim: how many of its last dimensions tell of the environment and not of the robot. Only the order of
            the condition depends on it; LeRobot has them apart.
        action_dim: width of the action; filled in from the data.
        camera_names: the cameras, in order; filled in from the data. None or empty: state alone.
        image_size: (height, width) in pixels that images come in.
        image_normalize: how pixels are normalized; [-1, 1], as the authors do.
        n_obs_steps: observations given, newest last.
        chunk_size: actions predicted (the authors' horizon). The chunk begins with the action of the oldest
            observation; what is answered begins now, and is n_obs_steps - 1 shorter.
        n_action_steps: actions executed before predicting again, at most chunk_size - n_obs_steps + 1.
        denoiser: `unet` (DP-C), convolutions over time, or `transformer` (DP-T), which the paper has do better where
            actions change fast, and need more tuning.
        unet_widths: channels of the U-Net's levels.
        unet_kernel_size: of its convolutions.
        unet_groups: of its group norms.
        unet_time_dim: width of its features of the denoising time.
        film_scale: the condition scales as well as shifts the U-Net's features (the authors' `cond_predict_scale`).
        hidden_size: width of the transformer.
        n_layers: its layers.
        n_heads: its attention heads.
        dropout: share dropped in its layers in training, in [0, 1).
        noise_scheduler: `ddim` or `ddpm`. Both are trained alike.
        n_diffusion_steps: denoising times of training.
        n_inference_steps: denoising steps of a chunk. With `ddim` 10, as the authors' real robots have it (section
            V-D of the paper): the policy must answer within a few control steps, and 100 steps of `ddpm`, as in
            their simulations, take ten times as long.
        beta_schedule: of the noise, as the schedulers of `diffusers` name it.
        beta_start: where the schedules that have one begin.
        beta_end: where they end.
        prediction_type: what the denoiser predicts: `epsilon` (the noise), `sample` or `v_prediction`.
        clip_sample: clip every guess of the clean chunk. Without it, guesses from almost pure noise run away.
        clip_sample_range: the least range it is clipped to. The range grows to what normalized actions were seen
            in training, so that it holds for `processor: {action: minmax}` (the authors') and any other alike.
        resize_shape: (height, width) that images are resized to before the crop; None for as they come.
        crop_shape: (height, width) of the part of the images that is looked at; None for all. The authors look at 76
            of 84 pixels and 84 of 96.
        crop_is_random: in training the crop is anywhere; else, and in inference, in the centre.
        share_encoder: one image encoder for all cameras instead of one each.
        n_keypoints: image points of each encoder's spatial softmax.
        backbone_widths: feature maps of the ResNet's four stages; the default with `backbone_depths` is ResNet-18.
        backbone_depths: blocks of each stage.
        backbone_block: `basic` or, of ResNet-50 and larger, `bottleneck`.
        backbone_norm: `group`, `batch` or `frozen_batch`; None for `group`, and `batch` for a pretrained backbone.
            Averages of weights and batch norms do not go together, say the authors.
        pretrained_backbone: a Hub id or a directory of a `transformers` ResNet with these widths and depths; None, as
            the authors have it, starts from random weights. It is read when a policy is made for training, never
            when a checkpoint is loaded.
    """

    model_type = "menura_diffusion"
    action_normalize = "minmax"

    def __init__(
        self,
        state_dim: int = 2,
        env_state_dim: int = 0,
        action_dim: int = 2,
        camera_names: Sequence[str] | None = None,
        image_size: Sequence[int] = (96, 96),
        image_normalize: Any = "minus_one_one",
        n_obs_steps: int = 2,
        chunk_size: int = 16,
        n_action_steps: int = 8,
        denoiser: str = "unet",
        unet_widths: Sequence[int] = (512, 1024, 2048),
        unet_kernel_size: int = 5,
        unet_groups: int = 8,
        unet_time_dim: int = 128,
        film_scale: bool = True,
        hidden_size: int = 256,
        n_layers: int = 8,
        n_heads: int = 4,
        dropout: float = 0.3,
        noise_scheduler: str = "ddim",
        n_diffusion_steps: int = 100,
        n_inference_steps: int = 10,
        beta_schedule: str = "squaredcos_cap_v2",
        beta_start: float = 1e-4,
        beta_end: float = 0.02,
        prediction_type: str = "epsilon",
        clip_sample: bool = True,
        clip_sample_range: float = 1.0,
        resize_shape: Sequence[int] | None = None,
        crop_shape: Sequence[int] | None = None,
        crop_is_random: bool = True,
        share_encoder: bool = False,
        n_keypoints: int = 32,
        backbone_widths: Sequence[int] = (64, 128, 256, 512),
        backbone_depths: Sequence[int] = (2, 2, 2, 2),
        backbone_block: str = "basic",
        backbone_norm: str | None = None,
        pretrained_backbone: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if denoiser not in ("unet", "transformer"):
            raise ValueError(f"expected denoiser to be unet or transformer, got {denoiser!r}")
        if chunk_size < n_obs_steps - 1 + n_action_steps:
            raise ValueError(
                f"expected chunk_size of at least n_obs_steps - 1 + n_action_steps = {n_obs_steps - 1 + n_action_steps}"
                f", since it begins at the oldest observation, got {chunk_size}"
            )
        if denoiser == "transformer" and hidden_size % n_heads:
            raise ValueError(f"expected hidden_size to be a multiple of n_heads, got {hidden_size} and {n_heads}")
        if not state_dim and not camera_names:
            raise ValueError("expected a state or cameras to act on, got a state_dim of 0 and no camera_names")
        if not 1 <= n_inference_steps <= n_diffusion_steps:
            raise ValueError(f"expected n_inference_steps in 1 … {n_diffusion_steps}, got {n_inference_steps}")
        side = image_size if isinstance(image_size, int) else tuple(image_size)
        height, width = resize_shape or (side if isinstance(side, tuple) else (side, side))
        if camera_names and crop_shape is not None and (crop_shape[0] > height or crop_shape[1] > width):
            raise ValueError(
                f"expected crop_shape within the {height} x {width} pixels of image_size or resize_shape, "
                f"got {list(crop_shape)}"
            )
        if not 0 <= env_state_dim <= state_dim:
            raise ValueError(f"expected env_state_dim in 0 … state_dim = {state_dim}, got {env_state_dim}")
        if backbone_norm is None:
            backbone_norm = "group" if pretrained_backbone is None else "batch"
        if camera_names:
            check_resnet(backbone_widths, backbone_depths, backbone_norm, pretrained_backbone, backbone_block)
        self.state_dim = state_dim
        self.env_state_dim = env_state_dim
        self.action_dim = action_dim
        self.camera_names = None if camera_names is None else list(camera_names)
        self.image_size = image_size if isinstance(image_size, int) else list(image_size)
        self.image_normalize = image_normalize
        self.n_obs_steps = n_obs_steps
        self.chunk_size = chunk_size
        self.n_action_steps = n_action_steps
        self.action_offsets = list(range(1 - n_obs_steps, 1 - n_obs_steps + chunk_size))
        self.denoiser = denoiser
        self.unet_widths = list(unet_widths)
        self.unet_kernel_size = unet_kernel_size
        self.unet_groups = unet_groups
        self.unet_time_dim = unet_time_dim
        self.film_scale = film_scale
        self.hidden_size = hidden_size
        self.n_layers = n_layers
        self.n_heads = n_heads
        self.dropout = dropout
        self.noise_scheduler = noise_scheduler
        self.n_diffusion_steps = n_diffusion_steps
        self.n_inference_steps = n_inference_steps
        self.beta_schedule = beta_schedule
        self.beta_start = beta_start
        self.beta_end = beta_end
        self.prediction_type = prediction_type
        self.clip_sample = clip_sample
        self.clip_sample_range = clip_sample_range
        self.resize_shape = None if resize_shape is None else list(resize_shape)
        self.crop_shape = None if crop_shape is None else list(crop_shape)
        self.crop_is_random = crop_is_random
        self.share_encoder = share_encoder
        self.n_keypoints = n_keypoints
        self.backbone_widths = list(backbone_widths)
        self.backbone_depths = list(backbone_depths)
        self.backbone_block = backbone_block
        self.backbone_norm = backbone_norm
        self.pretrained_backbone = pretrained_backbone
