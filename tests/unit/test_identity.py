"""How a worker signs what it writes."""

from __future__ import annotations

import os
import socket

import torch

from workers.delivery.identity import Identity


def test_processes_of_one_host_name_and_one_number_are_two_workers() -> None:
    names = {Identity.of_this_process(torch.device("cpu")).worker for _ in range(2)}
    assert len(names) == 2
    assert all(name.startswith(f"{socket.gethostname()}.") and name.endswith(f"-{os.getpid()}") for name in names)
