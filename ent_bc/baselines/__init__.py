"""The systems that EntBC stands on and is compared with, each as small as it can be.

`Imitator` is what they have in common, `train` trains any of them.
"""

from ent_bc.baselines.contextual import ContextualNet
from ent_bc.baselines.imitator import Imitator
from ent_bc.baselines.training import TrainConfig, train

__all__ = ["ContextualNet", "Imitator", "TrainConfig", "train"]
