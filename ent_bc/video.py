"""Videos of a demonstration and of what the policy makes of it, side by side."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import imageio_ffmpeg
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ent_bc.evaluation import Model, stack_observations

FPS = 20  # the environment's: videos run in real time
CAPTIONS = (
    ("demonstration", "policy"),
    ("demonstration of the other object", "policy, from the same start"),
)
_HOLD = 20  # frames that the end stays
_GAP = 4  # pixels between tiles
_PAPER, _INK = (255, 255, 255), (29, 36, 48)
_GIF_SIZES = ((400, 128), (360, 128), (320, 96), (280, 96), (240, 64), (160, 32))


def record_side_by_side(
    model: Model,
    env_id: str,
    env_kwargs: Mapping[str, Any],
    task: Any,
    *,
    seed: int,
    demonstration_seed: int,
    size: int = 240,
) -> np.ndarray:
    """Shows that the demonstration decides: one start, two demonstrations, two ends.

    Left what is shown to the policy, right what it does; above the task's own demonstration, below
    its twin's. Both rollouts have the same start, so what the policy sees first is the same.

    Args:
        model: What embeds the demonstrations and acts.
        env_id: The environment; one with ``rgb_array`` rendering and a ``pixels`` obs_type.
        env_kwargs: Its arguments, as the model knows it.
        task: Of the environment: index, id or task.
        seed: Fixes the start.
        demonstration_seed: Fixes the demonstrations.
        size: Height and width of each tile, pixels.

    Returns:
        (T, H, W, 3) uint8 at `FPS`; H and W are even.
    """
    env = gym.make(env_id, **{**env_kwargs, "render_mode": "rgb_array"})
    pretty = gym.make(env_id, **{**env_kwargs, "obs_type": "pixels", "image_size": 2 * size})
    base: Any = env.unwrapped
    env.reset(seed=seed, options={"task": task})
    task = base.task
    rows = []
    for shown, captions in zip((task, task.twin), CAPTIONS, strict=True):
        demonstrations = base.get_demonstrations(shown, 1, seed=demonstration_seed)
        sentence = model.embed(demonstrations)
        # The same seed gives the same episode, in pictures of any size.
        large: Any = pretty.unwrapped
        demonstrated = large.get_demonstrations(shown, 1, seed=demonstration_seed)[0].obs
        tiles = (demonstrated, _rollout(model, env, task, seed, sentence))
        rows.append([_captioned(t, c, size) for t, c in zip(tiles, captions, strict=True)])
    env.close()
    pretty.close()
    return _grid(rows)


def write_video(frames: np.ndarray, path: Path, *, fps: int = FPS) -> None:
    """Writes an MP4 that browsers play (H.264, yuv420p); the file appears whole or not at all.

    Args:
        frames: (T, H, W, 3) uint8; H and W even.
        path: Ends in ".mp4".
        fps: Frames a second.

    Raises:
        ValueError: The frames are no such array.
    """
    _check_frames(frames)
    if frames.shape[1] % 2 or frames.shape[2] % 2:
        raise ValueError(f"The frames are {frames.shape[1:3]}, expected an even height and width.")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    writer = imageio_ffmpeg.write_frames(
        str(temporary),
        (frames.shape[2], frames.shape[1]),
        fps=fps,
        codec="libx264",
        pix_fmt_out="yuv420p",
        macro_block_size=2,
        output_params=["-crf", "23", "-threads", "1", "-movflags", "+faststart"],
    )
    writer.send(None)  # a generator's start
    for frame in frames:
        writer.send(np.ascontiguousarray(frame))
    writer.close()
    os.replace(temporary, path)


def write_gif(
    frames: np.ndarray, path: Path, *, fps: int = FPS, every: int = 2, max_bytes: int = 1_500_000
) -> None:
    """Writes a GIF that loops, of fewer pixels and colours until it is small enough.

    Args:
        frames: (T, H, W, 3) uint8.
        path: Ends in ".gif".
        fps: Of the frames; the GIF plays as fast.
        every: Takes each so many-th frame.
        max_bytes: What a README can bear.

    Raises:
        ValueError: The frames are no such array, or will not fit.
    """
    _check_frames(frames)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    for width, n_colours in _GIF_SIZES:
        pictures = _quantised(frames[::every], min(width, frames.shape[2]), n_colours)
        pictures[0].save(
            temporary,
            format="GIF",
            save_all=True,
            append_images=pictures[1:],
            duration=round(1000 * every / fps),
            loop=0,
            optimize=False,
        )
        if temporary.stat().st_size <= max_bytes:
            os.replace(temporary, path)
            return
    size = temporary.stat().st_size
    temporary.unlink()
    raise ValueError(f"The GIF has {size} bytes at its smallest, expected at most {max_bytes}.")


def _rollout(
    model: Model, env: gym.Env[Any, Any], task: Any, seed: int, sentence: np.ndarray
) -> np.ndarray:
    """Pictures (T + 1, H, W, 3) of the policy doing what the sentence says."""
    observation, _ = env.reset(seed=seed, options={"task": task})
    frames: list[Any] = [env.render()]
    finished = False
    while not finished:
        actions, _ = model.predict(
            stack_observations([observation]), state=sentence, deterministic=True
        )
        observation, _, terminated, truncated, _ = env.step(actions[0])
        frames.append(env.render())
        finished = terminated or truncated
    return np.stack(frames)


def _captioned(frames: Sequence[np.ndarray] | np.ndarray, caption: str, size: int) -> np.ndarray:
    """Tiles (T, size + bar, size, 3) with a line of text above the picture."""
    bar = _bar_height(size)
    tiles = np.empty((len(frames), size + bar, size, 3), np.uint8)
    tiles[:, :bar] = _caption(caption, size, bar)
    for tile, frame in zip(tiles, frames, strict=True):
        tile[bar:] = Image.fromarray(frame).resize((size, size), Image.Resampling.BOX)
    return tiles


def _caption(text: str, width: int, height: int) -> np.ndarray:
    picture = Image.new("RGB", (width, height), _PAPER)
    draw = ImageDraw.Draw(picture)
    font_size = 0.62 * height
    font = ImageFont.load_default(font_size)
    while draw.textlength(text, font=font) > width - 4 and font_size > 5:
        font_size -= 0.5
        font = ImageFont.load_default(font_size)
    draw.text((width / 2, height / 2), text, fill=_INK, font=font, anchor="mm")
    return np.asarray(picture)


def _bar_height(size: int) -> int:
    return 2 * max(6, round(0.045 * size))


def _grid(rows: Sequence[Sequence[np.ndarray]]) -> np.ndarray:
    """Tiles (T, h, w, 3) in rows and columns with gaps; the shorter ones and the end stay."""
    length = max(len(tile) for row in rows for tile in row) + _HOLD
    _, height, width, _ = rows[0][0].shape
    whole = (len(rows) * (height + _GAP) - _GAP, len(rows[0]) * (width + _GAP) - _GAP)
    shape = (length, *(side + side % 2 for side in whole), 3)
    grid = np.full(shape, _PAPER[0], np.uint8)
    for r, row in enumerate(rows):
        for c, tile in enumerate(row):
            top, left = r * (height + _GAP), c * (width + _GAP)
            grid[: len(tile), top : top + height, left : left + width] = tile
            grid[len(tile) :, top : top + height, left : left + width] = tile[-1]
    return grid


def _quantised(frames: np.ndarray, width: int, n_colours: int) -> list[Image.Image]:
    """Pictures with one palette and no dithering: what stands still then costs nothing."""
    height = round(width * frames.shape[1] / frames.shape[2])
    pictures = [Image.fromarray(f).resize((width, height), Image.Resampling.BOX) for f in frames]
    samples = [np.asarray(pictures[i]) for i in (0, len(pictures) // 2, len(pictures) - 1)]
    # An octree keeps the few vivid colours of the objects, which a median cut sacrifices.
    palette = Image.fromarray(np.concatenate(samples)).quantize(
        n_colours, method=Image.Quantize.FASTOCTREE
    )
    return [p.quantize(palette=palette, dither=Image.Dither.NONE) for p in pictures]


def _check_frames(frames: np.ndarray) -> None:
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8 or not len(frames):
        raise ValueError(
            f"The frames are {frames.shape} of {frames.dtype}, expected (T, H, W, 3) of uint8."
        )
