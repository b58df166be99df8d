"""The paper's net as it is computed here is the paper's net as it is written down."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from torch import nn

from ent_bc import EntBC, layers
from ent_bc.layers import TiledConv2d, in_pieces, use_low_precision
from ent_bc.losses import TaskLoss
from ent_bc.presets import PRESETS
from ent_bc.schedule import bfloat16_is_fast
from ent_bc.speed.plain_net import PlainNet

SIZE, N_TASKS = 33, 6


def make_model() -> EntBC:
    space = spaces.Dict(
        {
            "pixels": spaces.Box(0, 255, (SIZE, SIZE, 3), np.uint8),
            "agent_pos": spaces.Box(-np.inf, np.inf, (20,), np.float32),
        }
    )
    arguments = PRESETS["paper"].arguments(100)
    model = EntBC(
        observation_space=space,
        action_space=spaces.Box(-2, 2, (7,), np.float32),
        seed=0,
        device="cpu",
        **arguments,
    )
    for norm in (m for m in model.policy.modules() if isinstance(m, (nn.GroupNorm, nn.LayerNorm))):
        nn.init.normal_(norm.weight, 1.0, 0.1)  # at first, all alike, they could be mixed up
        nn.init.normal_(norm.bias, 0.0, 0.1)
    return model


def some_observations(*shape: int) -> dict[str, th.Tensor]:
    return {
        "pixels": th.randint(0, 256, (*shape, SIZE, SIZE, 3), dtype=th.uint8),
        "agent_pos": th.randn(*shape, 20),
    }


def make_batch() -> dict[str, Any]:
    obs = {
        "demo": some_observations(N_TASKS, 2, 2),
        "obs": some_observations(N_TASKS, 2, 3),
        "twin_of": th.arange(N_TASKS) ^ 1,
        "noise": th.randn(N_TASKS, 2, 3, 7),
        "demo_target": th.full((N_TASKS, 2, 2), th.nan),
        "attention_target": th.full((N_TASKS, 2, 3, 2), th.nan),
    }
    return {"obs": obs, "acts": th.randn(N_TASKS, 2, 3, 7)}


def loss_of(model: EntBC, net: Any, batch: dict[str, Any]) -> th.Tensor:
    loss: th.Tensor = TaskLoss(model.losses, 1e-5, 0.0, 1)(net, batch["obs"], batch["acts"]).loss
    return loss


@pytest.fixture(autouse=True)
def _seed() -> None:
    th.manual_seed(0)


@pytest.mark.parametrize(("height", "width"), [(125, 125), (16, 21), (8, 5), (3, 4)])
@pytest.mark.parametrize(("taps", "stride", "padding"), [(5, 2, 2), (3, 1, 1), (3, 1, 0)])
def test_fast_conditioning_equals_tiling(
    height: int, width: int, taps: int, stride: int, padding: int
) -> None:
    fast = TiledConv2d(3 + 20, 16, taps, stride=stride, padding=padding)
    images = th.randn(4, 3, height, width, requires_grad=True)
    numbers = th.randn(4, 20, requires_grad=True)
    maps = fast(images, numbers)
    tiled = numbers[:, :, None, None].expand(-1, -1, height, width)
    plain = nn.functional.conv2d(
        th.cat([images, tiled], dim=1), fast.weight, fast.bias, stride, padding
    )
    th.testing.assert_close(maps, plain, rtol=1e-5, atol=1e-5)
    # And so do its gradients, of a weighted sum, for its largest values count most.
    upstream = th.randn_like(maps) / maps[0].numel() ** 0.5
    inputs = (images, numbers, *fast.parameters())
    for ours, theirs in zip(
        th.autograd.grad(maps, inputs, upstream, retain_graph=True),
        th.autograd.grad(plain, inputs, upstream),
        strict=True,
    ):
        th.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("low_precision", "tolerance"), [(False, 1e-4), (True, 1e-2)])
def test_the_papers_net_has_the_loss_of_the_plain_one(
    low_precision: bool, tolerance: float
) -> None:
    model, batch = make_model(), make_batch()
    plain = PlainNet(model.policy)
    expected = loss_of(model, plain, batch)
    use_low_precision(model.policy, low_precision)
    loss = loss_of(model, model.policy, batch)
    assert loss.item() == pytest.approx(expected.item(), rel=tolerance)
    assert low_precision == (loss.item() != pytest.approx(expected.item(), rel=1e-6))


def test_the_papers_net_has_the_gradients_of_the_plain_one() -> None:
    model, batch = make_model(), make_batch()
    plain = PlainNet(model.policy)
    for net in (model.policy, plain):
        loss_of(model, net, batch).backward()
    policy = model.policy
    extractor = policy.features_extractor.net
    for ours, theirs in (
        (extractor.convolutions, plain.control_images),
        (policy.encoder.convolutions, plain.embed_images),
        (policy.encoder.head, plain.embed_head),
        (policy.mlp_extractor, plain.control_head),
        (policy.action_net, plain.mean),
    ):
        for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            assert one.grad is not None and other.grad is not None
            th.testing.assert_close(one.grad, other.grad, rtol=1e-3, atol=1e-5)


def test_the_nets_answer_a_batch_in_pieces_as_in_one(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = make_model().policy
    first, last = some_observations(7), some_observations(7)
    whole = policy.embed(first, last).sentences
    control = policy.control(first, whole)
    monkeypatch.setattr(layers, "PIECE", 3 * SIZE * SIZE * 2)
    th.testing.assert_close(policy.embed(first, last).sentences, whole)
    th.testing.assert_close(policy.control(first, whole).mean, control.mean)
    calls: list[int] = []

    def note(obs: dict[str, th.Tensor]) -> Any:
        calls.append(len(obs["pixels"]))
        return policy._embed(obs, obs)

    in_pieces(note, first)
    assert calls == [2, 2, 2, 1]


def test_saved_parameters_of_the_papers_net_keep_their_names_and_shapes() -> None:
    shapes = {name: tuple(p.shape) for name, p in make_model().policy.state_dict().items()}
    for layer, (conv, norm) in enumerate(((0, 1), (3, 4), (6, 7), (9, 10))):
        for net, n_channels in (("features_extractor.net", 23), ("encoder", 6)):
            names = [f"{net}.convolutions.{place}" for place in (conv, norm)]
            assert shapes[f"{names[0]}.weight"] == (16, 16 if layer else n_channels, 5, 5)
            assert shapes[f"{names[1]}.weight"] == shapes[f"{names[0]}.bias"] == (16,)


def test_the_preset_convolves_in_bfloat16_where_that_is_fast(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for is_fast in (True, False):
        monkeypatch.setattr("ent_bc.presets.bfloat16_is_fast", lambda fast=is_fast: fast)
        assert PRESETS["paper"].arguments(1)["schedule"].low_precision is is_fast


@pytest.mark.parametrize(
    ("flags", "is_fast"),
    [
        ("flags : fma avx2", False),
        ("flags : avx512f avx512_bf16", False),  # products, but no matrices of them
        ("flags : avx512_bf16 amx_bf16 amx_tile", True),
        ("Features : asimd bf16", True),
        (None, False),
    ],
)
def test_bfloat16_is_fast_where_the_processor_multiplies_matrices_in_it(
    flags: str | None, is_fast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_text(path: Path, encoding: str) -> str:
        assert str(path) == "/proc/cpuinfo"
        if flags is None:
            raise FileNotFoundError(path)
        return flags

    monkeypatch.setattr("ent_bc.schedule.Path.read_text", read_text)
    assert bfloat16_is_fast() is is_fast
