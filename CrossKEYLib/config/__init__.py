"""Settings of every stage, one frozen dataclass each, and how they are read.

Units are in the names. The same classes serve Python, the command line, YAML files, the panel and
the checkpoints. Unknown keys, wrong types and values out of range are refused in one line.
"""

from .landmarks import FitConfig, FixedPointConfig, LandmarkConfig, LandmarkMethod
from .networks import DenseConfig, Modality, ResNetConfig, UAEConfig
from .reading import read_yaml
from .registration import (
    ConsensusConfig,
    EstimateConfig,
    FeatureMetricConfig,
    JointConfig,
    KeypointConfig,
    MatchConfig,
    MatchMethod,
    Refinement,
    RegisterConfig,
    SearchConfig,
    SiftConfig,
    Transform,
    TrustConfig,
)
from .training import LoopConfig, RoundsConfig, TrainConfig, UniversalTrainConfig, ViewConfig
from .values import Settings, from_mapping

__all__ = [
    "ConsensusConfig",
    "DenseConfig",
    "EstimateConfig",
    "FeatureMetricConfig",
    "FitConfig",
    "FixedPointConfig",
    "JointConfig",
    "KeypointConfig",
    "LandmarkConfig",
    "LandmarkMethod",
    "LoopConfig",
    "MatchConfig",
    "MatchMethod",
    "Modality",
    "Refinement",
    "RegisterConfig",
    "ResNetConfig",
    "RoundsConfig",
    "SearchConfig",
    "Settings",
    "SiftConfig",
    "TrainConfig",
    "Transform",
    "TrustConfig",
    "UAEConfig",
    "UniversalTrainConfig",
    "ViewConfig",
    "from_mapping",
    "read_yaml",
]
