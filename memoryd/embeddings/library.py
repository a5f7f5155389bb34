"""llama.cpp's library: started once, with its log passed on."""

import ctypes
import logging
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import llama_cpp
import llama_cpp.llama_cpp as llama

logger = logging.getLogger(__name__)

# ggml's levels: 2 is info, 3 is warning, 4 is error. It calls from its own threads.
_INFO = 2
_LOG_LEVELS = {3: logging.DEBUG, 4: logging.WARNING}
# llama.cpp tells what a context takes in its log alone.
_SIZE = re.compile(r"(?:KV|RS|compute) buffer size = +([\d.]+) MiB")


class _Noted(threading.local):
    sizes: list[int] | None = None


_noted = _Noted()


@llama.llama_log_callback  # type: ignore[untyped-decorator] # ctypes function types are untyped
def _log(level: int, text: bytes, _user_data: object) -> None:
    if level in _LOG_LEVELS:
        logger.log(_LOG_LEVELS[level], "%s", text.decode("utf-8", "replace").rstrip())
    elif level == _INFO and _noted.sizes is not None:
        for mebibytes in _SIZE.findall(text.decode("utf-8", "replace")):
            _noted.sizes.append(int(float(mebibytes) * (1 << 20)))


llama.llama_log_set(_log, ctypes.c_void_p(0))
llama.llama_backend_init()


@contextmanager
def noting_buffer_sizes() -> Iterator[list[int]]:
    """Collect the bytes of the buffers that llama.cpp makes in this thread during the block."""
    sizes: list[int] = []
    _noted.sizes = sizes
    try:
        yield sizes
    finally:
        _noted.sizes = None


def fastest_weight_type() -> Literal["bf16", "f32"]:
    """Return the type of weights that this build of llama.cpp should multiply fastest.

    Its BF16 kernels for CPUs need AVX512_BF16 (ggml-cpu/llamafile/sgemm.cpp); elsewhere BF16 is
    slower than F32. The build decides, and not the CPU: one for many CPUs leaves them out.
    """
    return "bf16" if b"AVX512_BF16 = 1" in llama.llama_print_system_info() else "f32"


def can_use_gpu() -> bool:
    """Say whether llama.cpp was built for a GPU and finds one."""
    return bool(llama.llama_supports_gpu_offload())


def describe_build() -> str:
    """Return the version of llama.cpp's package, and which features of the CPU the build uses."""
    info: bytes = llama.llama_print_system_info()
    return f"{llama_cpp.__version__} {info.decode('utf-8', 'replace').strip()}"


# By llama.cpp's numbers (llama_ftype in llama.h).
_WEIGHT_TYPES = {0: "f32", 1: "f16", 7: "q8_0", 32: "bf16"}


def weight_type_of(model: object) -> str:
    """Return the type of most matrices of a loaded model, such as bf16."""
    number: int = llama.llama_model_ftype(model)
    return _WEIGHT_TYPES.get(number, f"type {number}")


def requantize(path: Path, target: Path, weight_type: str) -> bool:
    """Write a copy of the model at `path` whose matrices are bf16 or f32; say whether it worked."""
    params = llama.llama_model_quantize_default_params()
    params.ftype = next(number for number, name in _WEIGHT_TYPES.items() if name == weight_type)
    code: int = llama.llama_model_quantize(
        os.fsencode(path), os.fsencode(target), ctypes.byref(params)
    )
    return code == 0
