"""DiffusionPolicy: both denoisers, what an observation becomes, and what it samples."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from transformers import ResNetConfig, ResNetModel

from menura.config import load_task
from menura.policies.check import check_policy
from menura.policies.common.keypoint_encoder import center_crop, random_crop
from menura.policies.contract import Needs
from menura.policies.diffusion.configuration_diffusion import DiffusionPolicyConfig
from menura.policies.diffusion.modeling_diffusion import DiffusionPolicy

SMALL = {"unet_widths": [16, 32], "unet_kernel_size": 3, "unet_time_dim": 16, "chunk_size": 8, "n_action_steps": 4}
TRANSFORMER = {"denoiser": "transformer", "hidden_size": 32, "n_layers": 2, "n_heads": 2, "dropout": 0.1}
IMAGES = {
    "camera_names": ["top", "wrist"],
    "image_size": [24, 24],
    "crop_shape": [20, 20],
    "backbone_widths": [16, 32],
    "backbone_depths": [1, 1],
    "n_keypoints": 4,
}


def make(**args: object) -> DiffusionPolicy:
    torch.manual_seed(0)
    return DiffusionPolicy(DiffusionPolicyConfig(**{"state_dim": 5, "action_dim": 3, **SMALL, **args})).eval()


def observation(policy: DiffusionPolicy, rows: int = 2) -> dict[str, Tensor]:
    config = policy.config
    obs = {"state": torch.randn(rows, config.n_obs_steps, config.state_dim)}
    if config.camera_names:
        obs["image"] = torch.randn(rows, config.n_obs_steps, len(config.camera_names), 3, *config.image_size)
    return obs


@pytest.mark.parametrize("args", [TRANSFORMER, {"noise_scheduler": "ddpm", "prediction_type": "v_prediction"}])
def test_the_contract_is_kept_by_what_the_tiny_section_is_not(args):
    results = check_policy(DiffusionPolicy, args={**SMALL, **args, "camera_names": []})
    assert [(result.name, result.message) for result in results if not result.ok] == []


def test_the_chunk_begins_at_the_oldest_observation_and_the_answer_now():
    policy = make(n_obs_steps=3)
    needs = Needs.of(policy.config)
    assert needs.observation_offsets == (-2, -1, 0)
    assert needs.action_offsets == tuple(range(-2, 6))
    obs, noise = observation(policy), torch.randn(2, *policy.noise_shape)
    whole = policy.sample(obs, noise)
    assert whole.shape == (2, 8, 3)
    assert torch.equal(policy.select_action(obs, noise=noise), whole[:, 2:])


@pytest.mark.parametrize("args", [{}, TRANSFORMER], ids=["unet", "transformer"])
def test_what_is_kept_over_the_steps_is_what_every_step_would_compute(args):
    """Ten steps with one condition, against the whole network anew at each."""
    policy = make(**args, **IMAGES)
    obs, noise = observation(policy), torch.randn(2, *policy.noise_shape)
    with torch.no_grad():
        anew = policy.process.sample(
            lambda sample, time: policy.denoise(sample, time, policy.condition(obs)), noise, 10, policy.action_bound
        )
    assert torch.equal(policy.sample(obs, noise), anew)


def test_an_action_of_the_transformer_sees_no_later_one_and_no_later_observation():
    policy = make(**TRANSFORMER, n_obs_steps=3)
    obs, sample, time = observation(policy), torch.randn(2, 8, 3), torch.tensor([5, 9])

    def predicted(obs: dict[str, Tensor], sample: Tensor) -> Tensor:
        with torch.no_grad():
            return policy.denoise(sample, time, policy.condition(obs))

    before = predicted(obs, sample)
    later = sample.clone()
    later[:, 5:] += 1
    assert torch.equal(predicted(obs, later)[:, :5], before[:, :5])
    assert not torch.equal(predicted(obs, later)[:, 5:], before[:, 5:])
    newer = {"state": obs["state"].clone()}
    newer["state"][:, 2] += 1
    # The chunk's first action is that of the first of three observations.
    assert torch.equal(predicted(newer, sample)[:, :2], before[:, :2])
    assert not torch.equal(predicted(newer, sample)[:, 2], before[:, 2])


def test_guesses_are_clipped_to_what_was_seen_in_training():
    policy = make(action_dim=3)
    actions = torch.zeros(2, 8, 3)
    actions[0, 3] = torch.tensor([0.5, -2.5, 4.0])
    actions[1, 7] = 100.0
    is_pad = torch.zeros(2, 8, dtype=torch.bool)
    is_pad[1, 7] = True
    policy(**observation(policy), actions=actions, is_pad=is_pad)
    assert policy.action_bound.tolist() == [1, 1, 1], "what is only evaluated is not learnt"
    policy.train()(**observation(policy), actions=actions, is_pad=is_pad)
    assert policy.action_bound.tolist() == [1, 2.5, 4]


def test_images_are_cropped_at_random_in_training_and_in_the_centre_when_acting():
    policy = make(**IMAGES)
    encoder = policy.encoder.cameras[0]
    image = torch.randn(4, 3, 24, 24)
    with torch.no_grad():
        centre = encoder(image)
        assert torch.equal(centre, encoder(center_crop(image, 20, 20)))
        encoder.train()
        assert not torch.equal(encoder(image), encoder(image))
        encoder.crop_is_random = False
        assert torch.equal(encoder(image), encoder(image))


def test_a_random_crop_is_a_part_of_its_own_image():
    image = torch.arange(2 * 3 * 5 * 6.0).reshape(2, 3, 5, 6)
    crops = random_crop(image, 3, 4)
    for number, crop in enumerate(crops):
        places = [
            (i, j) for i in range(3) for j in range(3) if torch.equal(image[number, :, i : i + 3, j : j + 4], crop)
        ]
        assert len(places) == 1


def test_one_encoder_for_all_cameras_or_one_each():
    each, shared = make(**IMAGES), make(**IMAGES, share_encoder=True)
    assert (len(each.encoder.cameras), len(shared.encoder.cameras)) == (2, 1)
    image = torch.randn(1, 2, 1, 3, 24, 24).repeat(1, 1, 2, 1, 1, 1)
    with torch.no_grad():
        points = shared.encoder(torch.zeros(1, 2, 5), image, None, None)[..., 5:].unflatten(-1, (2, -1))
        assert torch.equal(points[..., 0, :], points[..., 1, :])


def test_a_pretrained_backbone_is_taken_as_it_is(tmp_path):
    sizes = {"embedding_size": 16, "hidden_sizes": [16, 32], "depths": [1, 1], "layer_type": "basic"}
    pretrained = ResNetModel(ResNetConfig(**sizes))
    for parameter in pretrained.parameters():
        torch.nn.init.normal_(parameter)
    pretrained.save_pretrained(tmp_path / "resnet")
    policy = make(**IMAGES, pretrained_backbone=str(tmp_path / "resnet"))
    assert policy.config.backbone_norm == "batch"
    for encoder in policy.encoder.cameras:
        weights = encoder.backbone.resnet.state_dict()
        assert all(torch.equal(weights[name], tensor) for name, tensor in pretrained.state_dict().items())


@pytest.mark.parametrize("args", [{}, TRANSFORMER], ids=["unet", "transformer"])
def test_all_of_it_in_bfloat16(args):
    policy = make(**args, **IMAGES)
    obs, noise = observation(policy), torch.randn(2, *policy.noise_shape)
    expected = policy.select_action(obs, noise=noise)
    answer = policy.to(torch.bfloat16).select_action(obs, noise=noise)
    torch.testing.assert_close(answer, expected, rtol=0.1, atol=0.1)


@pytest.mark.parametrize("args", [{}, TRANSFORMER], ids=["unet", "transformer"])
def test_gradients_are_the_same_with_checkpointing(args):
    policy = make(**{**args, "dropout": 0.0}).train()
    batch = {**observation(policy), "actions": torch.randn(2, 8, 3)}

    def gradients() -> list[Tensor]:
        torch.manual_seed(1)
        policy.zero_grad()
        policy(**batch)["loss"].backward()
        return [p.grad for p in policy.parameters()]

    plain = gradients()
    policy.gradient_checkpointing_enable()
    for one, other in zip(plain, gradients(), strict=True):
        torch.testing.assert_close(one, other)


def test_an_adapter_counts_in_every_step():
    from peft import LoraConfig, get_peft_model

    policy = make()
    obs, noise = observation(policy), torch.randn(2, *policy.noise_shape)
    targets = ["film.condition", "film.time", "middle.first.first.0"]
    adapted = get_peft_model(policy, LoraConfig(r=2, target_modules=targets, init_lora_weights=False))
    with torch.no_grad():
        answer = adapted.base_model.model.select_action(obs, noise=noise)
        merged = adapted.merge_and_unload().select_action(obs, noise=noise)
    torch.testing.assert_close(answer, merged, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"denoiser": "mlp"}, "denoiser to be unet or transformer"),
        ({"chunk_size": 8, "n_action_steps": 8}, "chunk_size of at least n_obs_steps - 1"),
        ({"camera_names": ["top"], "crop_shape": [99, 9]}, "crop_shape within the 96 x 96 pixels"),
        ({"state_dim": 0}, "a state or cameras"),
        ({"n_inference_steps": 101}, "n_inference_steps in 1 … 100"),
        ({"env_state_dim": 6}, "env_state_dim in 0 … state_dim = 5"),
    ],
)
def test_wrong_settings_are_refused(args, message):
    with pytest.raises(ValueError, match=message):
        DiffusionPolicyConfig(**{"state_dim": 5, **args})


@pytest.mark.parametrize("name", ["diffusion", "diffusion_state"])
def test_the_sections_are_made_for_each_other(name, tmp_path):
    """The recipe acts with averaged weights."""
    (tmp_path / "task.yaml").write_text(
        f"datasets: [{{path: data}}]\npolicy: {name}\ntraining: diffusion\nprocessor: {{action: minmax}}\n"
    )
    config = load_task(tmp_path / "task.yaml", project=tmp_path).config
    assert config.policy.class_ == "DiffusionPolicy"
    assert config.training["ema"] is True
    with torch.device("meta"):
        DiffusionPolicy(DiffusionPolicyConfig(**config.policy.args))
