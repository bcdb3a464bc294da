import rclpy


class SingleThreadedExecutor:
    def __init__(self, *, context=None):
        self.context, self.nodes = context, []

    def add_node(self, node):
        self.nodes.append(node)
        return True

    def spin_once(self, timeout_sec=None):
        for node in self.nodes:
            rclpy.spin_node_once(node, timeout_sec)

    def shutdown(self, timeout_sec=None):
        self.nodes = []
        return True
