"""What NVIDIA's management library (NVML) says of the GPU of this worker."""

from __future__ import annotations

import logging
import warnings
from typing import Any

import torch

from tasks.monitoring.presence import GpuState

__all__ = ["gpu_state"]

logger = logging.getLogger(__name__)


def gpu_state(device: torch.device) -> GpuState | None:
    """None on a CPU, and where there is no NVML: in some containers, and without the package nvidia-ml-py."""
    if device.type != "cuda":
        return None
    try:
        import pynvml  # noqa: PLC0415  # loads the driver's library: only where there is one
    except ImportError:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pynvml.nvmlInit()
            return _state(pynvml, pynvml.nvmlDeviceGetHandleByUUID(_uuid(device)))
    except pynvml.NVMLError as error:
        logger.debug("NVML says nothing of %s: %s", device, error)
        return None


def _uuid(device: torch.device) -> str:
    """NVML counts all GPUs of the machine, CUDA those that this process may see: both know them by this name."""
    return f"GPU-{torch.cuda.get_device_properties(device).uuid}"


def _state(nvml: Any, handle: Any) -> GpuState:
    memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    return GpuState(
        utilisation=nvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100,
        memory_used_bytes=memory.used,
        memory_total_bytes=memory.total,
        temperature_c=nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU),
    )
