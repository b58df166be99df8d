"""Physics without timers."""

from __future__ import annotations

import mujoco
import numpy as np

from meta_pusher_env.untimed import untimed


def test_the_timers_stand_still_meanwhile_and_are_the_former_ones_afterwards() -> None:
    model = mujoco.MjModel.from_xml_string("<mujoco/>")
    data = mujoco.MjData(model)
    ticks: list[float] = []

    def clock() -> float:
        ticks.append(0.0)
        return float(len(ticks))

    mujoco.set_mjcb_time(clock)
    try:
        with untimed(), untimed():
            mujoco.mj_step(model, data)
        assert not ticks
        assert mujoco.get_mjcb_time() is clock
        mujoco.mj_step(model, data)
        assert ticks and data.time == np.float64(2 * model.opt.timestep)
    finally:
        mujoco.set_mjcb_time(None)
