"""Controllers are made for a policy."""

from menura.config import load_controller
from menura.control.controllers.make import make_controller


def test_what_executes_a_part_of_a_chunk_is_told_the_policys() -> None:
    assert make_controller(load_controller("delay_compensated"), 8).n_action_steps == 8
    said = load_controller("interpolating", ["--controller.args.n_action_steps", "3"])
    assert make_controller(said, 8).n_action_steps == 3
    assert make_controller(load_controller("real_time_chunking"), 8).n_action_steps is None
