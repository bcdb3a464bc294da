import numpy as np
from scipy.spatial.transform import Rotation as Turn

from menura.envs.base import Outcome, SimEnv
from menura.features import Features, Rotation, VectorFeature

QUATERNION = ("qw", "qx", "qy", "qz")
GOAL = ("goal_x", "goal_y", "goal_z", "goal_turn_x", "goal_turn_y", "goal_turn_z")


class PoseEnv(SimEnv):
    """A hand that is to be moved and turned to a goal. The action is where it is to be: absolute."""

    def __init__(self, max_episode_steps=40):
        self.features = Features(
            state=VectorFeature(
                ("x", "y", "z", *QUATERNION, "gripper", *GOAL),
                object_names=GOAL,
                rotations=(Rotation(QUATERNION, "quat_wxyz"), Rotation(GOAL[3:], "axis_angle")),
                grippers={"gripper": (0.0, 1.0)},
            ),
            action=VectorFeature(
                ("x", "y", "z", "turn_x", "turn_y", "turn_z", "gripper"),
                rotations=(Rotation(("turn_x", "turn_y", "turn_z"), "axis_angle"),),
                grippers={"gripper": (0.0, 1.0)},
            ),
            fps=10,
            control_space="ee",
            control_type="abs",
        )
        self.task = ""
        self.max_episode_steps = max_episode_steps
        self.success_rule = "within 5 cm and 0.15 rad of the goal"
        self.noisy_actions = np.array([True] * 6 + [False])
        self.declare_spaces([-4.0] * 7, [4.0] * 7)

    def start(self, seed):
        rng = np.random.default_rng(seed)
        self.position, self.goal = rng.uniform(-0.5, 0.5, (2, 3))
        self.turn, self.goal_turn = (Turn.from_rotvec(rng.uniform(-0.5, 0.5, 3)) for _ in range(2))
        self.gripper = 0.0

    def target(self):
        """Where a demonstrator sends it: towards the goal, at most 5 cm and 0.1 rad a step; open at the goal."""
        far = np.linalg.norm(self.goal - self.position)
        position = self.position + (self.goal - self.position) * min(1, 0.05 / max(far, 1e-9))
        missing = (self.goal_turn * self.turn.inv()).as_rotvec()
        turn = Turn.from_rotvec(missing * min(1, 0.1 / max(np.linalg.norm(missing), 1e-9))) * self.turn
        return np.concatenate([position, turn.as_rotvec(), [float(far < 0.05)]]).astype(np.float32)

    def apply(self, action):
        self.position = self.position + np.clip(action[:3] - self.position, -0.1, 0.1)
        self.turn, self.gripper = Turn.from_rotvec(action[3:6]), float(action[6])
        apart = (self.goal_turn * self.turn.inv()).magnitude()
        success = bool(np.linalg.norm(self.position - self.goal) < 0.05 and apart < 0.15)
        return Outcome(float(success), success)

    def state(self):
        quaternion = np.roll(self.turn.as_quat(canonical=True), 1)
        goal_turn = self.goal_turn.as_rotvec()
        return np.concatenate([self.position, quaternion, [self.gripper], self.goal, goal_turn]).astype(np.float32)
