"""What is particular to VQ-BeT: residual codes, two phases in one training, and what padding does to chunks."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from menura.policies.needs import Needs
from menura.policies.vqbet.configuration_vqbet import VQBeTPolicyConfig
from menura.policies.vqbet.modeling_vqbet import VQBeTPolicy

SMALL = {
    "state_dim": 5,
    "action_dim": 3,
    "n_obs_steps": 2,
    "chunk_size": 3,
    "n_action_steps": 2,
    "n_predicted_chunks": 2,
    "codebook_size": 4,
    "code_dim": 8,
    "vqvae_hidden_size": 16,
    "n_vqvae_steps": 3,
    "hidden_size": 16,
    "n_layers": 2,
    "n_heads": 2,
    "dropout": 0.0,
    "offset_loss_weight": 10.0,
}


def policy(**args) -> VQBeTPolicy:
    return VQBeTPolicy(VQBeTPolicyConfig(**{**SMALL, **args})).train()


def batch(rows: int = 6, seed: int = 0) -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(seed)
    return {
        "state": torch.randn(rows, 2, 5, generator=random),
        "actions": torch.randn(rows, 5, 3, generator=random),  # of 2 - 1 past steps, now, and 3 to come
    }


def optimizer_of(model: VQBeTPolicy) -> torch.optim.Optimizer:
    groups = model.get_optim_groups(SimpleNamespace(learning_rate=1e-2, weight_decay=0.1))
    return torch.optim.AdamW(groups)


def step(model: VQBeTPolicy, optimizer: torch.optim.Optimizer, seed: int) -> Tensor:
    torch.manual_seed(seed)
    optimizer.zero_grad()
    loss = model(**batch(seed=seed))["loss"]
    loss.backward()
    optimizer.step()
    return loss.detach()


def test_training_needs_the_actions_of_every_chunk():
    needs = Needs.of(policy().config)
    assert (needs.chunk_size, needs.action_offsets) == (3, (-1, 0, 1, 2, 3))
    assert Needs.of(VQBeTPolicyConfig()).action_offsets == tuple(range(-4, 7))


def test_a_code_is_the_nearest_entry_to_what_the_codes_before_it_left():
    quantizer = policy().quantizer
    chunks = torch.randn(20, 3, 3)
    codes = quantizer.encode(chunks)
    residual = quantizer.encoder(chunks.flatten(1)).detach()
    for book, code in zip(quantizer.codebooks, codes.unbind(-1), strict=True):
        assert torch.equal(code, torch.cdist(residual, book).argmin(dim=-1))
        residual = residual - book[code]
    decoded = quantizer.decoder(quantizer.encoder(chunks.flatten(1)) - residual).reshape(20, 3, 3)
    torch.testing.assert_close(quantizer.decode(codes), decoded)


def test_the_encoder_learns_from_what_was_decoded():
    quantizer = policy().quantizer
    chunks = torch.randn(20, 3, 3)
    reconstruction, quantization = quantizer.losses(chunks, torch.zeros(20, 3, dtype=torch.bool), None)
    torch.testing.assert_close(reconstruction, (quantizer.decode(quantizer.encode(chunks)) - chunks).abs().mean())
    of_reconstruction = torch.autograd.grad(reconstruction, list(quantizer.parameters()), allow_unused=True)
    named = dict(zip([name for name, _ in quantizer.named_parameters()], of_reconstruction, strict=True))
    assert named["encoder.0.weight"].any()
    assert named["codebooks"] is None, "the codes learn from the encodings"
    assert torch.autograd.grad(quantization, quantizer.codebooks)[0].any()


def test_the_codes_stay_as_they_are_after_their_steps():
    model = policy(n_vqvae_steps=3)
    optimizer = optimizer_of(model)
    for number in range(3):
        before = copy.deepcopy(model.quantizer.state_dict())
        step(model, optimizer, number)
        assert any(not torch.equal(value, before[name]) for name, value in model.quantizer.state_dict().items())
    assert model.vqvae_steps == 3
    before = copy.deepcopy(model.quantizer.state_dict())
    for number in range(3):  # neither by a gradient, nor by the optimizer's momentum or weight decay
        step(model, optimizer, number)
        assert all(parameter.grad is None for parameter in model.quantizer.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.quantizer.state_dict().items())


@pytest.mark.parametrize("saved_at", [2, 3, 4])
def test_a_training_that_is_resumed_is_where_it_was(saved_at, tmp_path):
    torch.manual_seed(0)
    model = policy(n_vqvae_steps=3)
    optimizer = optimizer_of(model)
    for number in range(6):
        if number == saved_at:
            model.save_pretrained(tmp_path)
            kept = copy.deepcopy(optimizer.state_dict())
        loss = step(model, optimizer, number)
    again = VQBeTPolicy.from_pretrained(tmp_path).train()
    assert again.vqvae_steps == saved_at
    resumed = optimizer_of(again)
    resumed.load_state_dict(kept)
    for number in range(saved_at, 6):
        other = step(again, resumed, number)
    assert torch.equal(other, loss)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


def test_evaluation_is_no_training_batch():
    model = policy().eval()
    model(**batch())
    assert model.vqvae_steps == 0


def test_a_chunk_that_begins_in_padding_is_none_and_one_that_ends_in_it_holds_its_last_action():
    model = policy(n_vqvae_steps=0)
    actions = torch.arange(5.0)[None, :, None].expand(1, 5, 3)
    chunks, padded = model._chunks(actions, torch.tensor([[True, False, False, False, True]]))
    assert chunks[:, :, 0].tolist() == [[0, 0, 0], [1, 2, 3], [2, 3, 3]]
    assert padded.tolist() == [[True] * 3, [False] * 3, [False, False, True]]


@pytest.mark.parametrize("learnt", [0, 100])
def test_padding_has_no_influence(learnt):
    model = policy(n_vqvae_steps=learnt).eval()
    one = batch()
    is_pad = torch.zeros(6, 5, dtype=torch.bool)
    is_pad[0, 3:] = is_pad[1, 0] = True

    def losses() -> list[Tensor]:
        torch.manual_seed(0)
        return list(model(**one, is_pad=is_pad).values())

    before = losses()
    one["actions"][is_pad] = 50.0
    assert all(torch.equal(a, b) for a, b in zip(before, losses(), strict=True))


def test_the_loss_is_the_focal_loss_of_the_codes_and_the_distance_of_the_actions():
    model = policy(n_vqvae_steps=0, code_loss_weights=(2.0, 0.5)).eval()
    one = batch()
    torch.manual_seed(0)
    losses = model(**one)
    chunks, _ = model._chunks(one["actions"], None)
    features = model._seen(one["state"], None, None, None, 1).flatten(0, 1)
    torch.manual_seed(0)
    logits, drawn = model._codes(features, torch.randn(len(features), 2))
    wanted = model.quantizer.encode(chunks)
    expected = torch.zeros(())
    for book, weight in enumerate((2.0, 0.5)):
        entropy = functional.cross_entropy(logits[:, book], wanted[:, book], reduction="none")
        expected = expected + weight * ((1 - (-entropy).exp()) ** 2 * entropy).mean()
    torch.testing.assert_close(losses["code_loss"], expected)
    distance = functional.l1_loss(model._decoded(features, drawn), chunks)
    torch.testing.assert_close(losses["offset_loss"], distance)
    torch.testing.assert_close(losses["loss"], expected + 10 * distance)


def test_what_is_predicted_now_does_not_need_the_later_queries():
    model = policy().eval()
    state = torch.randn(3, 2, 5)
    torch.testing.assert_close(
        model._seen(state, None, None, None, n_later=1)[:, :2], model._seen(state, None, None, None)
    )
    other = state.clone()
    other[:, 1] += 1.0  # the first observation's query does not see what comes after it
    torch.testing.assert_close(model._seen(other, None, None, None)[:, 0], model._seen(state, None, None, None)[:, 0])


@pytest.mark.parametrize("sequential", [False, True])
def test_codes_are_drawn_as_often_as_their_probability_says(sequential):
    model = policy(sequential_codes=sequential, code_temperature=0.5).eval()
    features = torch.randn(1, 16)
    with torch.no_grad():
        for head in model.code_heads:
            head.weight.mul_(10)
        logits, codes = model._codes(features.expand(40_000, -1), torch.randn(40_000, 2))
    shares = torch.bincount(codes[:, 0], minlength=4) / len(codes)
    torch.testing.assert_close(shares, (logits[0, 0] / 0.5).softmax(-1), rtol=0, atol=0.01)
    first = codes[:, 0] == codes[0, 0]  # the second code's probabilities may depend on the first
    shares = torch.bincount(codes[first, 1], minlength=4) / first.sum()
    torch.testing.assert_close(shares, (logits[0, 1] / 0.5).softmax(-1), rtol=0, atol=0.02)


def test_of_two_ways_one_is_taken():
    """Each as good, in the same state: what is drawn are the codes of one of them, and never of their mean."""
    args = {"n_obs_steps": 1, "n_predicted_chunks": 1, "n_vqvae_steps": 150, "vqvae_learning_rate": 1e-2}
    model = policy(**args, code_temperature=1.0)
    actions = torch.where(torch.arange(32)[:, None, None] % 2 == 0, 1.0, -1.0).expand(32, 3, 3)
    state = torch.zeros(32, 5)
    optimizer = optimizer_of(model)
    for _ in range(200):
        optimizer.zero_grad()
        model(state, actions=actions)["loss"].backward()
        optimizer.step()
    with torch.no_grad():
        _, codes = model._codes(model.eval()._seen(state, None, None, None)[:, -1], torch.randn(32, 2))
    decoded = model.quantizer.decode(codes)
    share = (decoded.mean(dim=(1, 2)) > 0).float().mean()
    assert 0.2 < share < 0.8
    torch.testing.assert_close(decoded.abs(), torch.ones(32, 3, 3), rtol=0, atol=0.3)


def test_every_parameter_is_in_one_group():
    model = policy()
    groups = model.get_optim_groups(SimpleNamespace(learning_rate=1e-4, weight_decay=1e-6))
    given = [id(p) for group in groups for p in group["params"]]
    assert sorted(given) == sorted(id(p) for p in model.parameters())
    assert [group["lr"] for group in groups] == [1e-4, 1e-4, 1e-3]
    assert [group["weight_decay"] for group in groups] == [1e-6, 0.0, 1e-4]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"code_loss_weights": (1.0,)}, "expected n_codebooks = 2 code_loss_weights"),
        ({"n_codebooks": 1, "code_loss_weights": (1.0,), "sequential_codes": True}, "n_codebooks of 2"),
        ({"code_temperature": 0.0}, "a code_temperature above 0"),
        ({"camera_names": ["top"], "image_size": (64, 64)}, "crop_shape within image_size"),
        ({"state_dim": 0}, "state_dim above 0 or a camera"),
        ({"hidden_size": 30, "n_heads": 4}, "a multiple of n_heads"),
    ],
)
def test_contradicting_settings_are_refused(args, message):
    with pytest.raises(ValueError, match=message):
        VQBeTPolicyConfig(**args)
