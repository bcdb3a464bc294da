from typing import ClassVar

import gymnasium
import numpy as np


class ReachEnv(gymnasium.Env):
    observation_space = gymnasium.spaces.Dict({"state": gymnasium.spaces.Box(-np.inf, np.inf, (4,), np.float32)})
    action_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
    metadata: ClassVar = {"render_fps": 10}
    max_episode_steps = 30

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.position, self.goal = self.np_random.uniform(-1, 1, 2), self.np_random.uniform(-1, 1, 2)
        return self.observation(), {"success": False}

    def observation(self):
        return {"state": np.concatenate([self.position, self.goal]).astype(np.float32)}

    def step(self, action):
        self.position = self.position + np.clip(action, -0.1, 0.1)
        success = bool(np.abs(self.position - self.goal).max() < 0.05)
        return self.observation(), float(success), success, False, {"success": success}
