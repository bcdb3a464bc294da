"""Driving a robot: controllers turn chunks into commands, safety bounds them, the loop keeps the time."""
