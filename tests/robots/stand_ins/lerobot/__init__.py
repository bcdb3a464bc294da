"""A stand-in for LeRobot 0.6.1: the interface of its drivers, and one arm, one leader and one gamepad behind it.

Where LeRobot itself is installed, the same tests run with it.
"""
