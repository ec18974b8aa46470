"""A worker's handlers are threads enough: none starts further ones for its arithmetic."""

from __future__ import annotations

import os
import subprocess
import sys

_CODE = """
import os, sys
from workers.commands.worker import SWITCH_S, share_cores
share_cores()
assert abs(sys.getswitchinterval() - SWITCH_S) < 1e-5
import numpy as np
np.ones((512, 512), np.float32) @ np.ones((512, 512), np.float32)
print(len(os.listdir("/proc/self/task")))
"""


def test_products_of_matrices_are_computed_by_the_thread_that_asks_for_them() -> None:
    environment = {k: v for k, v in os.environ.items() if not k.endswith("_NUM_THREADS")}
    told = subprocess.run([sys.executable, "-c", _CODE], env=environment, capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "1"
