"""Videos of a demonstration and of what the policy makes of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image

from ent_bc.evaluation import ENV_ID
from ent_bc.video import FPS, record_side_by_side, write_gif, write_video

SIZE = 64


class Twister:
    """Turns the arm as the demonstration says: a stand-in for a model."""

    def __init__(self) -> None:
        self.shown: list[str] = []

    def embed(self, demonstrations: Any) -> np.ndarray:
        self.shown.append(demonstrations[0].task_id)
        return np.full(20, len(self.shown), np.float32)

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, Any]:
        assert deterministic and len(observation) == 1
        torque = 1.0 if state[0] == 1 else -1.0
        return np.full((1, 7), torque, np.float32), state


@pytest.fixture(scope="module")
def recorded() -> tuple[np.ndarray, Twister]:
    model = Twister()
    kwargs = {"split": "val", "n_tasks": 4, "obs_type": "state"}
    frames = record_side_by_side(
        model, ENV_ID, kwargs, 2, seed=2**31, demonstration_seed=0, size=SIZE
    )
    return frames, model


def tiles(frames: np.ndarray) -> list[np.ndarray]:
    """Own demonstration, its rollout, the twin's demonstration, its rollout; without captions."""
    height = frames.shape[1] // 2
    rows = frames[:, height - SIZE - 2 : height - 2], frames[:, -SIZE:]
    return [part for row in rows for part in (row[:, :, :SIZE], row[:, :, -SIZE:])]


def test_a_video_is_two_by_two_tiles(recorded: tuple[np.ndarray, Twister]) -> None:
    frames, _ = recorded
    assert frames.dtype == np.uint8 and frames.ndim == 4 and frames.shape[-1] == 3
    assert len(frames) > 101  # an episode, and its end for a while
    assert frames.shape[1] % 2 == frames.shape[2] % 2 == 0
    assert frames.shape[1] > 2 * SIZE and 2 * SIZE < frames.shape[2] < 2 * SIZE + 10


def test_the_task_and_its_twin_are_shown(recorded: tuple[np.ndarray, Twister]) -> None:
    own, twin = recorded[1].shown
    assert own != twin and own[:-1] == twin[:-1]


def test_both_rollouts_begin_alike_and_end_by_what_was_shown(
    recorded: tuple[np.ndarray, Twister],
) -> None:
    _, own, _, twin = tiles(recorded[0])
    np.testing.assert_array_equal(own[0], twin[0])
    assert np.abs(own[-1].astype(int) - twin[-1]).mean() > 1


def test_everything_moves_and_the_end_stays(recorded: tuple[np.ndarray, Twister]) -> None:
    for tile in tiles(recorded[0]):
        assert np.abs(tile[0].astype(int) - tile[60]).mean() > 1
        np.testing.assert_array_equal(tile[101], tile[-1])


def test_the_mp4_can_be_played(recorded: tuple[np.ndarray, Twister], tmp_path: Path) -> None:
    frames, _ = recorded
    write_video(frames, tmp_path / "new" / "video.mp4")
    reader = imageio_ffmpeg.read_frames(str(tmp_path / "new" / "video.mp4"))
    meta = next(reader)
    assert meta["size"] == (frames.shape[2], frames.shape[1])
    assert meta["fps"] == FPS
    assert meta["codec"] == "h264" and meta["pix_fmt"].startswith("yuv420p")
    decoded = [np.frombuffer(raw, np.uint8).reshape(frames.shape[1:]) for raw in reader]
    assert len(decoded) == len(frames)
    assert np.abs(decoded[50].astype(int) - frames[50]).mean() < 8
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["video.mp4"]


def test_the_gif_is_small_loops_and_runs_in_real_time(
    recorded: tuple[np.ndarray, Twister], tmp_path: Path
) -> None:
    frames, _ = recorded
    path = tmp_path / "video.gif"
    write_gif(frames, path)
    assert path.stat().st_size < 1_500_000
    with Image.open(path) as gif:
        assert gif.info["loop"] == 0
        seconds = 0.0
        for index in range(gif.n_frames):  # type: ignore[attr-defined]
            gif.seek(index)
            seconds += gif.info["duration"] / 1000
        gif.seek(0)
        first = np.asarray(gif.convert("RGB"))
    assert seconds == pytest.approx(len(frames) / FPS, abs=0.1)
    assert np.abs(first.astype(int) - frames[0]).mean() < 8


def test_a_gif_gives_up_pixels_and_colours_to_fit(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (6, 400, 400, 3), np.uint8)
    write_gif(noise, tmp_path / "large.gif")
    limit = (tmp_path / "large.gif").stat().st_size // 2
    write_gif(noise, tmp_path / "small.gif", max_bytes=limit)
    assert (tmp_path / "small.gif").stat().st_size <= limit
    with pytest.raises(ValueError, match="expected at most 10"):
        write_gif(noise, tmp_path / "none.gif", max_bytes=10)
    assert {path.name for path in tmp_path.iterdir()} == {"large.gif", "small.gif"}


@pytest.mark.parametrize(
    "frames",
    [
        np.zeros((2, 8, 8), np.uint8),
        np.zeros((2, 8, 8, 3), np.float32),
        np.zeros((0, 8, 8, 3), np.uint8),
        np.zeros((2, 9, 8, 3), np.uint8),
    ],
)
def test_frames_that_are_none_are_refused(frames: np.ndarray, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected"):
        write_video(frames, tmp_path / "video.mp4")
    assert not list(tmp_path.iterdir())
