"""The original ACT's checkpoints, in the layout of its code, against that code's way of computing with them."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from menura.conversion import convert, load_foreign
from menura.errors import CheckpointError, StatisticsError
from menura.meta_policy import MetaPolicy

WIDTH, HEADS, FEEDFORWARD, CHUNK, STATE, LATENT = 16, 2, 24, 5, 14, 32
ARGS = {"camera_names": ["top", "wrist"], "image_size": [32, 64], "n_heads": HEADS}


class Layer(nn.Module):
    """Of the transformer as the authors' code names its parts (`detr/models/transformer.py`), post-norm."""

    def __init__(self, decoder: bool) -> None:
        super().__init__()
        self.self_attn = nn.MultiheadAttention(WIDTH, HEADS)
        self.multihead_attn = nn.MultiheadAttention(WIDTH, HEADS) if decoder else None
        self.linear1, self.linear2 = nn.Linear(WIDTH, FEEDFORWARD), nn.Linear(FEEDFORWARD, WIDTH)
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.norm3 = nn.LayerNorm(WIDTH) if decoder else None

    def forward(self, x, positions, memory=None, memory_positions=None):
        x = self.norm1(x + self.self_attn(x + positions, x + positions, x)[0])
        last = self.norm2
        if self.multihead_attn is not None:
            attended = self.multihead_attn(x + positions, memory + memory_positions, memory)[0]
            x, last = self.norm2(x + attended), self.norm3
        return last(x + self.linear2(functional.relu(self.linear1(x))))


class Original(nn.Module):
    """`DETRVAE`: the parts of the authors' state dict, and what they compute when acting."""

    def __init__(self) -> None:
        super().__init__()
        self.transformer = nn.Module()
        self.transformer.encoder, self.transformer.decoder, self.encoder = nn.Module(), nn.Module(), nn.Module()
        self.transformer.encoder.layers = nn.ModuleList(Layer(False) for _ in range(2))
        self.transformer.decoder.layers = nn.ModuleList(Layer(True) for _ in range(3))
        self.transformer.decoder.norm = nn.LayerNorm(WIDTH)
        self.encoder.layers = nn.ModuleList(Layer(False) for _ in range(1))
        self.action_head, self.is_pad_head = nn.Linear(WIDTH, STATE), nn.Linear(WIDTH, 1)
        self.query_embed, self.cls_embed = nn.Embedding(CHUNK, WIDTH), nn.Embedding(1, WIDTH)
        self.additional_pos_embed = nn.Embedding(2, WIDTH)
        self.input_proj = nn.Conv2d(512, WIDTH, 1)
        self.input_proj_robot_state = nn.Linear(STATE, WIDTH)
        self.encoder_action_proj, self.encoder_joint_proj = nn.Linear(STATE, WIDTH), nn.Linear(STATE, WIDTH)
        self.latent_proj, self.latent_out_proj = nn.Linear(WIDTH, 2 * LATENT), nn.Linear(LATENT, WIDTH)
        self.register_buffer("pos_table", torch.zeros(1, 2 + CHUNK, WIDTH))

    def forward(self, state, maps, grid):
        """`maps` (B, K, 512, h, w) of the backbone and `grid` (h, w, D) of its positions: cameras side by side."""
        tokens = [self.latent_out_proj(torch.zeros(len(state), LATENT)), self.input_proj_robot_state(state)]
        images = self.input_proj(maps.flatten(0, 1)).unflatten(0, maps.shape[:2])  # (B, K, D, h, w)
        wide = torch.cat(list(images.unbind(1)), dim=3)  # (B, D, h, K·w)
        x = torch.cat([torch.stack(tokens), wide.flatten(2).permute(2, 0, 1)])
        beside = torch.cat([grid] * maps.shape[1], dim=1).flatten(0, 1)
        positions = torch.cat([self.additional_pos_embed.weight, beside])[:, None]
        for layer in self.transformer.encoder.layers:
            x = layer(x, positions)
        queries = self.query_embed.weight[:, None].repeat(1, len(state), 1)
        chunk = self.transformer.decoder.layers[0](torch.zeros_like(queries), queries, x, positions)
        return self.action_head(self.transformer.decoder.norm(chunk)).transpose(0, 1)


def resnet18() -> dict[str, torch.Tensor]:
    """Names and shapes of torchvision's, with frozen batch norms; small random numbers."""
    random = torch.Generator().manual_seed(5)
    tensors: dict[str, torch.Tensor] = {}

    def convolution(name: str, out: int, into: int, size: int) -> None:
        tensors[f"{name}.weight"] = torch.randn(out, into, size, size, generator=random) / (into * size**2) ** 0.5

    def norm(name: str, width: int) -> None:
        for leaf in ("weight", "bias", "running_mean", "running_var"):
            middle = 1.0 if leaf in ("weight", "running_var") else 0.0
            tensors[f"{name}.{leaf}"] = middle + 0.2 * torch.rand(width, generator=random)

    convolution("conv1", 64, 3, 7)
    norm("bn1", 64)
    before = 64
    for stage, width in enumerate((64, 128, 256, 512), start=1):
        for block in range(2):
            into = before if block == 0 else width
            where = f"layer{stage}.{block}"
            for number, channels in ((1, into), (2, width)):
                convolution(f"{where}.conv{number}", width, channels, 3)
                norm(f"{where}.bn{number}", width)
            if into != width:
                convolution(f"{where}.downsample.0", width, into, 1)
                norm(f"{where}.downsample.1", width)
        before = width
    return tensors


@pytest.fixture(scope="module")
def original() -> Original:
    torch.manual_seed(0)
    return Original().eval()


@pytest.fixture
def directory(original, tmp_path) -> Path:
    state_dict = {f"model.{name}": tensor for name, tensor in original.state_dict().items()}
    state_dict |= {f"model.backbones.0.0.body.{name}": tensor for name, tensor in resnet18().items()}
    torch.save(state_dict, tmp_path / "policy_best.ckpt")
    write_statistics(tmp_path)
    return tmp_path


def write_statistics(directory: Path, **other: object) -> None:
    random = np.random.default_rng(2)
    statistics: dict[str, object] = {"example_qpos": random.normal(size=(4, STATE))}
    for key in ("qpos", "action"):
        statistics[f"{key}_mean"] = random.normal(size=STATE).astype(np.float32)
        statistics[f"{key}_std"] = random.uniform(0.01, 2, size=STATE).astype(np.float32)
    (directory / "dataset_stats.pkl").write_bytes(pickle.dumps({**statistics, **other}))


def observation() -> dict[str, object]:
    random = np.random.default_rng(3)
    images = {name: random.integers(0, 256, (2, 32, 64, 3), dtype=np.uint8) for name in ARGS["camera_names"]}
    return {"state": random.normal(size=(2, STATE)).astype(np.float32), "images": images}


def test_it_acts_as_the_original(directory, original):
    foreign = load_foreign(directory, args=ARGS)
    meta = MetaPolicy(foreign.policy, foreign.processor)
    raw = observation()
    statistics = pickle.loads((directory / "dataset_stats.pkl").read_bytes())  # written above
    state = torch.from_numpy((raw["state"] - statistics["qpos_mean"]) / statistics["qpos_std"])
    with torch.no_grad():
        image = meta.inputs(raw)["image"].clone()  # ImageNet's normalization, tested with the processor
        maps = foreign.policy.backbone(image.flatten(0, 1)).unflatten(0, image.shape[:2])
        chunk = original(state, maps, positions(*maps.shape[-2:])).numpy()
    expected = chunk * statistics["action_std"] + statistics["action_mean"]
    np.testing.assert_allclose(meta.predict(raw), expected, atol=1e-4)
    assert foreign.policy.config.n_decoder_layers == 1
    assert "reads the first layer's output alone" in foreign.report


def positions(height: int, width: int) -> torch.Tensor:
    """`PositionEmbeddingSine(WIDTH // 2, normalize=True)` of DETR, written anew: (h, w, D)."""
    grid = torch.zeros(height, width, WIDTH)
    half = WIDTH // 2
    for i in range(height):
        for j in range(width):
            for k in range(half):
                frequency = 10000 ** (2 * (k // 2) / half)
                for offset, place in ((0, (i + 1) / height), (half, (j + 1) / width)):
                    angle = place * 2 * np.pi / frequency
                    grid[i, j, offset + k] = np.sin(angle) if k % 2 == 0 else np.cos(angle)
    return grid


def test_a_checkpoint_of_menura_is_written(directory, tmp_path):
    raw = observation()
    expected = MetaPolicy(*pair(load_foreign(directory / "policy_best.ckpt", args=ARGS))).predict(raw)
    out = convert(directory, tmp_path / "out", args=ARGS)
    np.testing.assert_allclose(MetaPolicy.from_pretrained(out).predict(raw), expected, atol=1e-5)


def pair(foreign):
    return foreign.policy, foreign.processor


def test_an_older_form_of_torch_save(directory):
    state_dict = torch.load(directory / "policy_best.ckpt", weights_only=True)
    torch.save(state_dict, directory / "policy_best.ckpt", _use_new_zipfile_serialization=False)
    load_foreign(directory, args=ARGS)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({}, r"expected the names of its cameras, .* got None\. Give them: --args '{camera_names: \[top\]}'"),
        ({"camera_names": "top"}, "expected the names of its cameras"),
        ({**ARGS, "n_head": 2}, "args: expected some of camera_names, .* got 'n_head'; did you mean n_heads"),
    ],
)
def test_wrong_arguments(directory, args, message):
    with pytest.raises(CheckpointError, match=message):
        load_foreign(directory, args=args)


def test_a_directory_of_something_else_is_told_before_anything_is_asked(tmp_path):
    with pytest.raises(CheckpointError, match=r"policy_best.ckpt: expected this file of an original ACT, got none"):
        load_foreign(tmp_path, origin="act")


def saved(change):
    def edit(directory: Path) -> None:
        state_dict = torch.load(directory / "policy_best.ckpt", weights_only=True)
        change(state_dict)
        torch.save(state_dict, directory / "policy_best.ckpt")

    return edit


REFUSED = {
    "left over": (
        saved(lambda weights: weights.update({"model.backbones.1.0.body.conv1.weight": torch.zeros(1)})),
        "got model.backbones.1.0.body.conv1.weight left over",
    ),
    "missing": (saved(lambda weights: weights.pop("model.action_head.bias")), "missing keys: action_head.bias"),
    "of state alone": (
        saved(lambda weights: [weights.pop(name) for name in list(weights) if "backbones" in name]),
        r"expected a ResNet of resnet18, .* got stages of \[0, 0, 0, 0\]",
    ),
    "no state dict": (
        lambda path: torch.save({"epoch": 3}, path / "policy_best.ckpt"),
        "expected a state dict of tensors, got dict",
    ),
    "cut short": (
        lambda path: (path / "policy_best.ckpt").write_bytes((path / "policy_best.ckpt").read_bytes()[:1000]),
        r"policy_best\.ckpt: expected ",
    ),
}
WRONG_STATISTICS = {
    "missing": ({"qpos_std": None}, "expected qpos_std of 14 numbers, got NoneType"),
    "width": ({"qpos_mean": np.zeros(7)}, r"expected qpos_mean of 14 numbers, got shape \(7,\)"),
    "no deviation": ({"action_std": np.zeros(STATE)}, "action_std: expected numbers above 0, got 0"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name, directory):
    change, message = REFUSED[name]
    change(directory)
    with pytest.raises(CheckpointError, match=message):
        load_foreign(directory, args=ARGS)


@pytest.mark.parametrize("name", WRONG_STATISTICS)
def test_wrong_statistics(name, directory):
    other, message = WRONG_STATISTICS[name]
    write_statistics(directory, **other)
    with pytest.raises(StatisticsError, match=message):
        load_foreign(directory, args=ARGS)
