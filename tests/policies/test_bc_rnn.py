"""What is particular to BC-RNN: the mixture's likelihood, and a history that the window holds instead of the policy."""

from __future__ import annotations

import pytest
import torch
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from menura.policies.bc_rnn.configuration_bc_rnn import BCRNNPolicyConfig
from menura.policies.bc_rnn.mixture_bc_rnn import Mixture, MixtureHead
from menura.policies.bc_rnn.modeling_bc_rnn import BCRNNPolicy
from menura.policies.common.keypoint_encoder import center_crop, random_crop
from menura.policies.needs import Needs

SMALL = {"state_dim": 5, "action_dim": 3, "n_obs_steps": 4, "hidden_size": 16, "n_modes": 3}


def policy(**args) -> BCRNNPolicy:
    return BCRNNPolicy(BCRNNPolicyConfig(**{**SMALL, **args})).eval()


def mixture(*shape: int, modes: int = 3, width: int = 4) -> Mixture:
    weights = torch.randn(*shape, modes).log_softmax(-1)
    return Mixture(weights, torch.randn(*shape, modes, width), torch.rand(*shape, modes, width) + 0.1)


def reference(of: Mixture) -> MixtureSameFamily:
    return MixtureSameFamily(Categorical(logits=of.log_weights), Independent(Normal(of.means, of.stds), 1))


def test_the_likelihood_is_that_of_torch():
    ours = mixture(6, 5)
    values = torch.randn(6, 5, 4)
    likelihood = ours.log_likelihood(values, torch.ones_like(values, dtype=torch.bool))
    torch.testing.assert_close(likelihood, reference(ours).log_prob(values))


def test_what_does_not_count_is_integrated_out():
    ours = mixture(6)
    values = torch.randn(6, 4)
    counts = torch.tensor([True, False, True, False]).expand(6, 4)
    rest = Mixture(ours.log_weights, ours.means[..., ::2], ours.stds[..., ::2])
    torch.testing.assert_close(ours.log_likelihood(values, counts), reference(rest).log_prob(values[:, ::2]))
    nothing = ours.log_likelihood(values, torch.zeros_like(counts))
    torch.testing.assert_close(nothing, torch.zeros(6), rtol=0, atol=1e-6)


def test_samples_follow_the_mixture():
    one = mixture(1, width=1)
    many = Mixture(*(part.expand(200_000, *part.shape[1:]) for part in (one.log_weights, one.means, one.stds)))
    drawn = many.sample(torch.randn(200_000, 2))
    expected = reference(one)
    torch.testing.assert_close(drawn.mean(0), expected.mean[0], rtol=0, atol=0.02)
    torch.testing.assert_close(drawn.var(0), expected.variance[0], rtol=0.03, atol=0.01)


def test_without_noise_every_sample_is_a_mean_as_often_as_its_weight_says():
    one = mixture(1)
    many = Mixture(*(part.expand(50_000, *part.shape[1:]) for part in (one.log_weights, one.means, one.stds)))
    drawn = many.sample(torch.randn(50_000, 5), std=0.0)
    shares = torch.stack([(drawn == mean).all(-1).float().mean() for mean in one.means[0]])
    torch.testing.assert_close(shares, one.log_weights[0].exp(), rtol=0, atol=0.01)


def test_means_are_bounded_where_that_is_asked_for():
    x = 100 * torch.randn(50, 8)
    assert MixtureHead(8, 3, 4, min_std=0.1, bounded=True)(x).means.abs().max() <= 1
    free = MixtureHead(8, 3, 4, min_std=0.1, bounded=False)(x)
    assert free.means.abs().max() > 1
    assert free.stds.min() >= 0.1


def test_training_needs_the_actions_at_every_observation():
    needs = Needs.of(BCRNNPolicyConfig(n_obs_steps=4, chunk_size=2, n_action_steps=1))
    assert (needs.chunk_size, needs.action_offsets) == (2, (-3, -2, -1, 0, 1))
    assert Needs.of(BCRNNPolicyConfig()).action_offsets == tuple(range(-9, 1))


def test_unrolled_over_the_window_it_is_an_lstm_carried_from_step_to_step():
    """As robomimic acts until its first reset: a young episode's window is padded with its first observation."""
    model = policy()
    episode = torch.randn(4, 5)
    carried = None
    for step in range(4):
        out, carried = model.lstm(episode[step].reshape(1, 1, 5), carried)
        rows = torch.arange(step - 3, step + 1)
        is_pad = (rows < 0)[None]
        seen = model._unroll(episode[rows.clamp(min=0)][None], is_pad)
        torch.testing.assert_close(seen[:, -1], out[:, -1])


def test_observations_before_the_episode_have_no_influence():
    model = policy()
    state, is_pad = torch.randn(2, 4, 5), torch.tensor([[True, True, False, False], [False] * 4])
    noise = torch.randn(2, 4)
    answer = model.select_action({"state": state, "observation_is_pad": is_pad}, noise=noise)
    other = state.clone()
    other[0, :2] = 9.0
    assert torch.equal(model.select_action({"state": other, "observation_is_pad": is_pad}, noise=noise), answer)
    assert not torch.equal(model.select_action({"state": other}, noise=noise), answer)

    actions = torch.randn(2, 4, 3)
    loss = model(state, actions=actions, observation_is_pad=is_pad)["loss"]
    actions[0, :2] = 9.0
    assert torch.equal(model(other, actions=actions, observation_is_pad=is_pad)["loss"], loss)


def test_the_loss_is_the_mean_over_observations_of_what_their_chunks_lack():
    model = policy(chunk_size=2)
    state, actions = torch.randn(2, 4, 5), torch.randn(2, 5, 3)
    is_pad = torch.zeros(2, 5, dtype=torch.bool)
    is_pad[0, 3:] = True  # the episode ends: the last observation has nothing to predict, the one before it one action
    loss = model(state, actions=actions, is_pad=is_pad)["loss"]
    predicted: Mixture = model.head(model.lstm(state)[0])
    expected = []
    for row in range(2):
        for step in range(4):
            valid = int((~is_pad[row, step : step + 2]).sum())
            if valid:
                width = 3 * valid
                part = Mixture(
                    predicted.log_weights[row, step],
                    predicted.means[row, step, :, :width],
                    predicted.stds[row, step, :, :width],
                )
                expected.append(-reference(part).log_prob(actions[row, step : step + valid].flatten()))
    torch.testing.assert_close(loss, torch.stack(expected).mean())


def test_a_mode_is_followed_through_the_whole_chunk():
    """Two ways to go, each as good: what is sampled is one of them, and never their mean."""
    model = policy(chunk_size=4, n_modes=2, min_std=0.05, n_obs_steps=1).train()
    state = torch.zeros(32, 5)
    actions = torch.where(torch.arange(32)[:, None, None] % 2 == 0, 1.0, -1.0).expand(32, 4, 3)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(200):
        optimizer.zero_grad()
        model(state, actions=actions)["loss"].backward()
        optimizer.step()
    drawn = model.eval().select_action(
        {"state": state}, generator=[torch.Generator().manual_seed(i) for i in range(32)]
    )
    direction = drawn.sign()[:, :1, :1]
    assert (direction == 1).any()
    assert (direction == -1).any()
    torch.testing.assert_close(drawn, direction.expand_as(drawn), rtol=0, atol=0.1)


def test_neither_state_nor_camera_is_refused():
    with pytest.raises(ValueError, match="state_dim above 0 or a camera"):
        BCRNNPolicyConfig(state_dim=0)


def test_crops_are_pieces_of_the_image():
    image = torch.arange(3 * 3 * 8 * 10.0).reshape(3, 3, 8, 10)
    assert torch.equal(center_crop(image, 4, 6), image[..., 2:6, 2:8])
    drawn = random_crop(image, 4, 6)
    for row, piece in zip(image, drawn, strict=True):
        places = [(top, left) for top in range(5) for left in range(5)]
        assert sum(torch.equal(row[:, t : t + 4, left : left + 6], piece) for t, left in places) == 1
    assert torch.equal(random_crop(image, 8, 10), image)
