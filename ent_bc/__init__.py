"""Entropy-regularised one-shot imitation for `imitation` and Stable-Baselines3."""

from ent_bc.batches import BatchConfig
from ent_bc.ent_bc import EntBC, ScheduleConfig
from ent_bc.losses import LossConfig
from ent_bc.policies import TaskConditionedPolicy

__all__ = ["BatchConfig", "EntBC", "LossConfig", "ScheduleConfig", "TaskConditionedPolicy"]
