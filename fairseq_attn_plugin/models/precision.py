"""Matrix products in bfloat16, all else as it is: ``--matmul-dtype``."""

import logging
from contextlib import nullcontext
from functools import cache
from typing import ContextManager, Optional

import torch

logger = logging.getLogger(__name__)

MATMUL_DTYPES = {"float32": None, "bfloat16": torch.bfloat16}
"""Value of ``--matmul-dtype`` → type of the products; None = that of the parameters."""


def products_in(dtype: Optional[torch.dtype], device: torch.device) -> ContextManager:
    """Matrix products and recurrent kernels in ``dtype``, softmax and sums in float32; None changes nothing."""
    if dtype is None:
        return nullcontext()
    _warn_where_slow(dtype, device.type)
    return torch.autocast(device.type, dtype=dtype)


@cache
def _warn_where_slow(dtype: torch.dtype, device: str) -> None:
    if device == "cuda":
        fast = torch.cuda.get_device_capability() >= (8, 0)
    else:
        known = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
        fast = device != "cpu" or known is None or known()
    if not fast:
        logger.warning(
            f"--matmul-dtype {str(dtype).removeprefix('torch.')}: this {device} has no instructions for it, so it is "
            "slower here than float32"
        )
