"""A CPU that transformers takes for a GPU, so that verl's packed path runs on it."""

import importlib
import sys

from rilbench.train.verl import flash_attention


def pretend_gpu(*, cast=False):
    """Install the adapter as on a GPU. Call it before a model is built; it lasts for the process.

    Args:
        cast: keep verl's cast of float32 to bf16, which flash-attn's kernels need.
    """
    from transformers import modeling_flash_attention_utils as flash
    from transformers.utils import import_utils

    import_utils.is_torch_cuda_available = lambda: True
    flash.FLASH_ATTENTION_COMPATIBILITY_MATRIX[2]["supported_devices"] = ((lambda: True, "cpu"),)
    flash_attention.install()
    assert sys.modules["flash_attn"] is flash_attention
    qwen = importlib.import_module("verl.models.transformers.qwen2_vl")
    assert qwen.flash_attn_varlen_func is flash_attention.flash_attn_varlen_func
    if not cast:
        qwen.fa_peft_integration_check = lambda *tensors, **_: tensors
    return flash_attention
