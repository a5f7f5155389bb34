"""What a vector is, from the engine to Postgres and back."""

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.float32]
"""One embedding, shape (dimensions,)."""

Vectors = npt.NDArray[np.float32]
"""One embedding per row, shape (n, dimensions)."""
