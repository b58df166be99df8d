"""MIL: one gradient step on the demonstration, and training through it."""

from __future__ import annotations

import dataclasses
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from test_baselines import MarkedEnv, cued_demonstrations, share_shown
from torch.utils._pytree import tree_map
from toys import (
    ACTION_SPACE,
    DICT_SPACE,
    N_ACTIONS,
    PIXELS_SPACE,
    TaskEnv,
    make_demonstrations,
)

from ent_bc.baselines import MilNet, TrainConfig, train
from ent_bc.baselines.imitator import Shown, squared_error
from ent_bc.baselines.mil import MAX_GRADIENT, STEP_SIZE
from ent_bc.batches import TaskBatches
from ent_bc.demonstrations import index_obs


def net(**kwargs: Any) -> MilNet:
    th.manual_seed(0)
    made = MilNet(DICT_SPACE, ACTION_SPACE, **kwargs)
    with th.no_grad():
        made.body.bias.normal_()
    return made


def shown(n_tasks: int = 3, n_shots: int = 1) -> Shown:
    """Whatever was shown; large actions make gradients that are clipped."""
    generator = th.Generator().manual_seed(1)
    shape = (n_tasks, n_shots, 4)
    obs = {
        "pixels": th.randint(256, (*shape, *PIXELS_SPACE.shape), generator=generator).byte(),
        "agent_pos": th.randn(*shape, 4, generator=generator),
    }
    acts = 100 * th.randn(*shape, N_ACTIONS, generator=generator)
    return Shown(obs, acts, tree_map(lambda leaf: leaf[:, :, -1], obs))


def part(whole: Shown, tasks: slice) -> Shown:
    return Shown(**tree_map(lambda leaf: leaf[tasks], vars(whole)))


def batch() -> tuple[Any, th.Tensor]:
    drawn = TaskBatches(make_demonstrations("pixels_agent_pos"), 4, MilNet.batches, 0).batch(0)
    tensors = tree_map(th.as_tensor, drawn)
    return tensors["obs"], tensors["acts"]


def outer_gradient(model: MilNet) -> th.Tensor:
    model.loss(*batch()).backward()
    grads = [p.grad.flatten() for p in model.body.parameters() if p.grad is not None]
    return th.cat(grads)


def by_hand(model: MilNet, task: Shown) -> tuple[th.Tensor, th.Tensor]:
    """Parameters after a step that is written out, and the gradient."""
    inputs = model.to_inputs(tree_map(lambda leaf: leaf[0].flatten(0, 1), task.obs))
    hidden = model.body(inputs["pixels"], inputs["vector"])
    error = squared_error(model.head_before(hidden), task.acts[0].flatten(0, 1))
    parameters = list(model.body.parameters())
    gradient = th.cat([part.flatten() for part in th.autograd.grad(error, parameters)])
    before = th.cat([parameter.flatten() for parameter in parameters])
    return before - STEP_SIZE * gradient.clamp(-MAX_GRADIENT, MAX_GRADIENT), gradient


# --- the step ---


@pytest.mark.parametrize("n_shots", [1, 2])
def test_the_state_is_the_parameters_after_a_clipped_gradient_step(n_shots: int) -> None:
    model, task = net(), shown(1, n_shots)
    after, gradient = by_hand(model, task)
    assert 0.01 < (gradient.abs() > MAX_GRADIENT).float().mean() < 0.99
    th.testing.assert_close(model.remember(task)[0], after, rtol=1e-4, atol=1e-5)


def test_several_tasks_at_once_are_as_one_by_one() -> None:
    model, tasks = net(), shown(3)
    states = model.remember(tasks)
    alone = [model.remember(part(tasks, slice(i, i + 1))) for i in range(3)]
    th.testing.assert_close(states, th.cat(alone), rtol=1e-4, atol=1e-5)
    assert (states[0] != states[1]).any()
    frames = tree_map(lambda leaf: leaf[:, 0], tasks.obs)
    acts = model.roll_out(frames, states)
    assert acts.shape == (3, 4, N_ACTIONS)
    for step in range(4):
        at_step = tree_map(lambda leaf, step=step: leaf[:, step], frames)
        stepped, same = model.act(at_step, states)
        th.testing.assert_close(stepped, acts[:, step], rtol=1e-4, atol=1e-5)
        assert same is states


def test_a_task_acts_with_the_parameters_after_the_step() -> None:
    model, task = net(), shown(1)
    state = model.remember(task)
    frames = tree_map(lambda leaf: leaf[:, 0], task.obs)
    acts = model.roll_out(frames, state)
    th.nn.utils.vector_to_parameters(state[0], model.body.parameters())
    inputs = model.to_inputs(tree_map(lambda leaf: leaf[0], frames))
    expected = model.head_after(model.body(inputs["pixels"], inputs["vector"]))
    th.testing.assert_close(acts[0], expected, rtol=1e-4, atol=1e-5)


# --- two heads ---


def test_the_step_is_taken_with_one_head_and_another_one_acts() -> None:
    model, task = net(), shown(1)
    frames = tree_map(lambda leaf: leaf[:, 0], task.obs)
    state = model.remember(task)
    acts = model.roll_out(frames, state)
    with th.no_grad():
        model.head_before.weight.add_(1)
    assert th.equal(model.roll_out(frames, state), acts)
    assert not th.equal(model.remember(task), state)
    state = model.remember(task)
    with th.no_grad():
        model.head_after.weight.add_(1)
    assert th.equal(model.remember(task), state)
    assert not th.equal(model.roll_out(frames, state), acts)


# --- training through the step ---


def test_training_goes_through_the_step() -> None:
    second, first = outer_gradient(net()), outer_gradient(net(first_order=True))
    assert th.isfinite(second).all()
    assert (second - first).norm() > 0.01 * first.norm()
    assert th.equal(net().remember(shown()), net(first_order=True).remember(shown()))


def test_the_head_of_the_step_is_trained_by_what_the_step_does_alone() -> None:
    second, first = net(), net(first_order=True)
    for model in (second, first):
        outer_gradient(model)
    assert second.head_before.weight.grad is not None
    assert (second.head_before.weight.grad != 0).any()
    assert first.head_before.weight.grad is None


# --- what is seen of the demonstration ---


@pytest.mark.parametrize("changed", ["acts", "agent_pos", "pixels"])
@pytest.mark.parametrize("video_only", [False, True])
def test_video_only_sees_the_pictures_alone(video_only: bool, changed: str) -> None:
    model, task = net(video_only=video_only), shown(1)
    state = model.remember(task)
    if changed == "acts":
        other = dataclasses.replace(task, acts=-task.acts)
    else:
        flipped = {changed: task.obs[changed].flip(2)}
        other = dataclasses.replace(task, obs={**task.obs, **flipped})
    seen = changed == "pixels" or not video_only
    assert th.equal(model.remember(other), state) is not seen


def test_video_only_takes_a_video() -> None:
    model, task = net(video_only=True), shown(1)
    video = Shown({"pixels": task.obs["pixels"]}, task.acts, {"pixels": task.last["pixels"]})
    assert th.equal(model.remember(video), model.remember(task))


def test_the_loss_of_video_only_is_the_norm_of_a_linear_map() -> None:
    model, task = net(video_only=True), shown(1)
    pixels = th.cat([task.obs["pixels"], task.last["pixels"][:, :, None]], dim=2)
    blank = {"pixels": pixels, "agent_pos": th.zeros(1, 1, 5, 4)}
    nothing = Shown(blank, th.zeros(1, 1, 5, N_ACTIONS), None)
    expected, _ = by_hand(model, nothing)
    th.testing.assert_close(model.remember(task)[0], expected, rtol=1e-4, atol=1e-5)


# --- as a model ---


def test_it_embeds_and_predicts_as_others_do() -> None:
    env, model = TaskEnv("pixels_agent_pos"), net()
    demos = [env.get_demonstrations(task, 1, seed=task) for task in range(2)]
    state = model.embed(demos)
    assert state.dtype == np.float32 and state.shape[0] == 2
    obs = tree_map(lambda leaf: leaf[:2], demos[0][0].obs)
    acts, after = model.predict(obs, state=state)
    assert acts.shape == (2, N_ACTIONS) and ACTION_SPACE.contains(acts[0])
    np.testing.assert_array_equal(after, state)
    with th.no_grad():  # as callers may
        np.testing.assert_array_equal(model.embed(demos), state)


# --- it learns ---


@pytest.mark.parametrize("video_only", [False, True])
def test_it_learns_to_do_what_only_the_demonstration_tells(video_only: bool) -> None:
    model = net(video_only=video_only)
    config = TrainConfig(n_batches=60, batch_size=4, learning_rate=2e-3)
    train(model, cued_demonstrations(0), config)
    demos = cued_demonstrations(1)
    state = model.embed([[demo] for demo in demos])
    acts, _ = model.predict(index_obs(demos[0].obs, [0] * len(demos)), state=state)
    np.testing.assert_array_equal(np.sign(acts), [demo.acts[0] for demo in demos])


def test_it_learns_where_the_target_is_marked_in_the_image() -> None:
    gym.register("MarkedForMil-v0", MarkedEnv)
    demonstrations = [
        demo
        for seed, task in enumerate(MarkedEnv().tasks)
        for demo in MarkedEnv().get_demonstrations(task, 4, seed=seed)
    ]
    model = net()
    assert share_shown(model, "MarkedForMil-v0") <= 0.2
    train(model, demonstrations, TrainConfig(n_batches=220, batch_size=4, learning_rate=2e-3))
    assert share_shown(model, "MarkedForMil-v0") >= 0.9
