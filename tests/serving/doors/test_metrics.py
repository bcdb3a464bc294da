"""What a server tells of itself is what happened."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from menura.serving.doors.metrics import Metrics


def samples(metrics: Metrics) -> dict[tuple[str, ...], float]:
    """(name, label values…) -> value"""
    families = text_string_to_metric_families(metrics.exposition().decode())
    return {(s.name, *s.labels.values()): s.value for family in families for s in family.samples}


def test_requests_by_door_and_outcome() -> None:
    metrics = Metrics()
    metrics.observe_request(0.003)
    metrics.observe_request(0.004, door="http")
    metrics.observe_request(0.5, "late", door="zmq")
    told = samples(metrics)
    assert told["menura_request_seconds_count", "websocket", "ok"] == 1
    assert told["menura_request_seconds_count", "http", "ok"] == 1
    assert told["menura_request_seconds_sum", "zmq", "late"] == 0.5
    assert told["menura_errors_total", "late"] == 1
    assert ("menura_errors_total", "ok") not in told


def test_batches_queue_and_sessions() -> None:
    metrics = Metrics()
    metrics.observe_batch(3, 0.02)
    metrics.queue.set(5)
    metrics.sessions.inc()
    told = samples(metrics)
    assert told["menura_batch_rows_sum",] == 3
    assert told["menura_inference_seconds_sum",] == 0.02
    assert told["menura_queue_length",] == 5
    assert told["menura_sessions",] == 1


def test_servers_share_no_numbers() -> None:
    one, other = Metrics(), Metrics()
    one.observe_batch(1, 0.1)
    assert samples(other)["menura_batch_rows_count",] == 0
