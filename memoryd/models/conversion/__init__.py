"""Folders of sentence-transformers and Hugging Face models → GGUF, the file format of llama.cpp.

The format: ggml's docs/gguf.md. What each architecture needs in it: the Python package `conversion`
of llama.cpp, and what its src/models read. Nothing is written that isn't understood: a setting,
module or tensor that would change the vectors and that llama.cpp can't follow is an error.
"""

from memoryd.models.conversion.description import describe_folder
from memoryd.models.conversion.writing import convert

__all__ = ["convert", "describe_folder"]
