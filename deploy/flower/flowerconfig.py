"""Flower's options. Flower takes every name bound here as an option, so import nothing named like one (`logging`)."""

from tasks.monitoring.paper import PAPER as _PAPER

# Finer around the paper's latencies of one and of ten steps; the defaults begin at 5 ms.
_USUAL = (
    0.001, 0.002, 0.003, 0.006, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
)  # fmt: skip
task_runtime_metric_buckets = sorted({*_USUAL, *(figure.ms / 1000 for figure in _PAPER)})

# Task history outlives a restart: it is saved when Flower is stopped. Saving now and then as well would hold up every
# page for as long as thousands of tasks take to be written (measured: 0.9 s for 20,000).
persistent = True
state_save_interval = 0
max_tasks = 5_000
