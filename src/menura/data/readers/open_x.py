"""What is known of well-known datasets and neither RLDS nor tensorflow-datasets has a place for.

Rates are from the column "Control Frequency" of the overview of Open X-Embodiment (https://robotics-transformer-x.github.io,
arXiv:2310.08864), as `push_dataset_to_hub/openx/configs.yaml` of LeRobot 0.1 has it. RT-1 (fractal, 3 Hz) is described
in arXiv:2212.06817, BridgeData V2 (5 Hz) in arXiv:2308.12952, DROID (15 Hz) in arXiv:2403.12945. The parts of DROID are
as its recorder makes them (https://github.com/droid-dataset/droid: franka/robot.py, misc/transformations.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from menura.features import ControlSpace, ControlType

_SUFFIX = "_converted_externally_to_rlds"
_RATES = {
    1: ("robo_net", "uiuc_d3field"),
    2: ("ucsd_kitchen_dataset",),
    3: (
        "berkeley_gnm_recon",
        "fractal20220817_data",
        "nyu_door_opening_surprising_effectiveness",
        "nyu_franka_play_dataset",
        "nyu_rot_dataset",
        "ucsd_pick_and_place_dataset",
    ),
    5: (
        "berkeley_autolab_ur5",
        "berkeley_gnm_cory_hall",
        "berkeley_mvp",
        "bridge",
        "bridge_dataset",
        "cmu_play_fusion",
        "dlr_edan_shared_control",
        "robo_set",
        "stanford_robocook",
    ),
    10: (
        "bc_z",
        "berkeley_cable_routing",
        "berkeley_fanuc_manipulation",
        "berkeley_gnm_sac_son",
        "cmu_franka_exploration_dataset",
        "cmu_playing_with_food",
        "cmu_stretch",
        "columbia_cairlab_pusht_real",
        "dlr_sara_grid_clamp",
        "dlr_sara_pour",
        "fmb",
        "furniture_bench_dataset",
        "imperialcollege_sawyer_wrist_cam",
        "jaco_play",
        "kaist_nonprehensile",
        "kuka",
        "language_table",
        "roboturk",
        "stanford_hydra_dataset",
        "tokyo_u_lsmo",
        "usc_cloth_sim",
        "utokyo_pr2_opening_fridge",
        "utokyo_pr2_tabletop_manipulation",
        "utokyo_xarm_bimanual",
        "utokyo_xarm_pick_and_place",
    ),
    12.5: ("asu_table_top",),
    15: ("droid", "droid_100", "taco_play"),
    20: (
        "austin_buds_dataset",
        "austin_sailor_dataset",
        "austin_sirius_dataset",
        "iamlab_cmu_pickup_insert",
        "maniskill_dataset",
        "plex_robosuite",
        "stanford_kuka_multimodal_dataset",
        "utaustin_mutex",
        "viola",
    ),
    30: ("berkeley_rpt", "conq_hose_manipulation", "toto"),
}
#: Name of a dataset without Open X-Embodiment's `_converted_externally_to_rlds` -> steps per second.
RATES: Mapping[str, float] = MappingProxyType({name: float(fps) for fps, names in _RATES.items() for name in names})


def known_fps(dataset: str) -> float | None:
    """Steps per second of a dataset by its name in tensorflow-datasets; None where unknown."""
    return RATES.get(dataset.removesuffix(_SUFFIX))


@dataclass(frozen=True)
class Part:
    """What the numbers of one feature are.

    Attributes:
        units: one per number.
        rotation: (first number, representation) of an orientation in it.
        gripper: of a gripper, (value when closed, value when open).
        control: of an action, what it commands.
    """

    units: tuple[str, ...]
    rotation: tuple[int, str] | None = None
    gripper: tuple[float, float] | None = None
    control: tuple[ControlSpace, ControlType] | None = None


_POSE = ("m", "m", "m", "rad", "rad", "rad")
_DROID = {
    "steps/observation/cartesian_position": Part(_POSE, rotation=(3, "euler_xyz")),
    "steps/observation/joint_position": Part(("rad",) * 7),
    "steps/observation/gripper_position": Part(("1",), gripper=(1.0, 0.0)),
    "steps/action_dict/cartesian_position": Part(_POSE, rotation=(3, "euler_xyz"), control=("ee", "abs")),
    "steps/action_dict/joint_position": Part(("rad",) * 7, control=("joint", "abs")),
    "steps/action_dict/gripper_position": Part(("1",), gripper=(1.0, 0.0)),
}
_PARTS = {"droid": _DROID, "droid_100": _DROID}


def known_part(dataset: str, key: str) -> Part | None:
    """What is known of a feature by its whole key; None where nothing is."""
    return _PARTS.get(dataset, {}).get(key)
