"""A stand-in for rclpy: its interface (docs.ros.org, rclpy of Humble to Jazzy), and a graph within the process."""

import queue
import threading

from rclpy.clock import Clock


class Graph:
    """Who publishes and subscribes what."""

    def __init__(self):
        self.lock = threading.Lock()
        self.subscriptions = []
        self.types = {}

    def publish(self, topic, message):
        with self.lock:
            subscriptions = [each for each in self.subscriptions if each.topic_name == topic]
        for subscription in subscriptions:
            assert isinstance(message, subscription.type)
            subscription.node.inbox.put((subscription.callback, message))


GRAPH = Graph()


def init(*, args=None, context=None, domain_id=None, signal_handler_options=None):
    assert context is not None
    assert not context.ok(), "a context is initialized once"
    context._ok = True


def shutdown(*, context=None, uninstall_handlers=None):
    assert context.ok()
    context._ok = False


def create_node(node_name, *, context=None, **options):
    assert node_name.isidentifier()
    return Node(node_name, context)


class Subscription:
    def __init__(self, node, type_, topic, callback, qos):
        self.node, self.type, self.topic_name, self.callback, self.qos = node, type_, topic, callback, qos


class Publisher:
    def __init__(self, type_, topic, qos):
        self.type, self.topic_name, self.qos = type_, topic, qos

    def publish(self, message):
        if not isinstance(message, self.type):
            raise TypeError(f"expected {self.type}")
        GRAPH.publish(self.topic_name, message)

    def get_subscription_count(self):
        with GRAPH.lock:
            return sum(each.topic_name == self.topic_name for each in GRAPH.subscriptions)


class Node:
    def __init__(self, name, context):
        assert context.ok()
        self.context, self.name = context, name
        self.inbox = queue.Queue()

    def create_subscription(self, msg_type, topic, callback, qos_profile):
        subscription = Subscription(self, msg_type, topic, callback, qos_profile)
        with GRAPH.lock:
            GRAPH.subscriptions.append(subscription)
        return subscription

    def create_publisher(self, msg_type, topic, qos_profile):
        with GRAPH.lock:
            GRAPH.types.setdefault(topic, [f"{msg_type.__module__.replace('.', '/')}/{msg_type.__name__}"])
        return Publisher(msg_type, topic, qos_profile)

    def get_topic_names_and_types(self):
        with GRAPH.lock:
            return list(GRAPH.types.items())

    def get_clock(self):
        return Clock()

    def destroy_node(self):
        with GRAPH.lock:
            GRAPH.subscriptions = [each for each in GRAPH.subscriptions if each.node is not self]


def spin_node_once(node, timeout_sec):
    try:
        callback, message = node.inbox.get(timeout=timeout_sec)
    except queue.Empty:
        return
    callback(message)
