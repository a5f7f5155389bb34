"""The engine: texts and tokens in, vectors out."""

import os

# Before llama.cpp's OpenMP is loaded: threads that wait at a barrier sleep instead of spinning.
# Spinning stalls a query for up to a second where anything else uses a core.
os.environ.setdefault("GOMP_SPINCOUNT", "0")
