"""Figures for Prometheus, counted in SQL at the moment they are asked for."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from orchestrator.app import App
from orchestrator.service.views import daemon
from orchestrator.service.views import streams as views


class Figures:
    """A collector that reads the records; it keeps nothing between two scrapes."""

    def __init__(self, app: App) -> None:
        self._app = app

    def collect(self) -> Iterator[Metric]:
        """All figures."""
        for table, counts in daemon.state_counts(self._app).items():
            family = GaugeMetricFamily(f"rekindle_{table}", f"Number of {table} by state", labels=["state"])
            for state, count in counts.items():
                family.add_metric([state], count)
            yield family
        pending = GaugeMetricFamily("rekindle_pending_documents", "Training documents that wait", labels=["stream"])
        live = GaugeMetricFamily("rekindle_live_version", "Number of the live version", labels=["stream"])
        for stream in views.list_streams(self._app, archived=False, limit=1000):
            pending.add_metric([stream.name], stream.pending_documents)
            if stream.live is not None:
                live.add_metric([stream.name], stream.live)
        failing = GaugeMetricFamily("rekindle_failing_steps", "Steps of the daemon's loop that keep failing")
        failing.add_metric([], len(self._app.faults))
        yield pending
        yield live
        yield failing


def render(app: App) -> tuple[bytes, str]:
    """The figures as text, and its content type."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Figures(app))
    return generate_latest(registry), CONTENT_TYPE_LATEST
