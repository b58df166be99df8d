"""The systems that EntBC stands on and is compared with, each as small as it can be.

`Imitator` is what they have in common, `train` trains any of them.
"""

from ent_bc.baselines.behavioural_cloning import BCConfig, Clone, train_bc
from ent_bc.baselines.contextual import ContextualNet
from ent_bc.baselines.dagger import DAggerConfig, train_dagger
from ent_bc.baselines.duan import DuanNet
from ent_bc.baselines.imitator import Imitator
from ent_bc.baselines.lstm import LstmNet
from ent_bc.baselines.mil import MilNet
from ent_bc.baselines.modern import ChunkNet, MixtureNet
from ent_bc.baselines.training import TrainConfig, train

__all__ = [
    "BCConfig",
    "ChunkNet",
    "Clone",
    "ContextualNet",
    "DAggerConfig",
    "DuanNet",
    "Imitator",
    "LstmNet",
    "MilNet",
    "MixtureNet",
    "TrainConfig",
    "train",
    "train_bc",
    "train_dagger",
]
