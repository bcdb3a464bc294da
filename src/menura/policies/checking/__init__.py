"""The parts of `menura.policies.check`: reading a policy's source, making samples, watching it learn and act."""
