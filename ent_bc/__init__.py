"""Entropy-regularised one-shot imitation for `imitation` and Stable-Baselines3."""

from ent_bc.batches import BatchConfig
from ent_bc.ent_bc import EntBC
from ent_bc.expert_policy import ExpertPolicy
from ent_bc.losses import LossConfig
from ent_bc.policies import TaskConditionedPolicy
from ent_bc.schedule import ScheduleConfig
from ent_bc.trajectories import as_trajectories
from ent_bc.wrappers import SentenceObservation, VecSentenceObservation

__all__ = [
    "BatchConfig",
    "EntBC",
    "ExpertPolicy",
    "LossConfig",
    "ScheduleConfig",
    "SentenceObservation",
    "TaskConditionedPolicy",
    "VecSentenceObservation",
    "as_trajectories",
]
