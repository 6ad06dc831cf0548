"""What other packages import only if it is installed stays out of own processes, and only there."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import sys
from metacurate.beside import own_process
if sys.argv[1] == "own":
    own_process()
import metacurate.pipeline
import numba, numpy as np, pyarrow as pa
pa.array(np.arange(3.0)).to_numpy()
print("pandas" in sys.modules, "scipy.linalg" in sys.modules)
import pandas as pd
print(pa.array(pd.Series([1.0, None])).null_count, len(pa.table({"a": [1, 2]}).to_pandas()))
print(numba.njit(lambda a: np.dot(a, a))(np.arange(3.0)))
"""


@pytest.mark.parametrize("whose", ["own", "foreign"])
def test_pandas_and_scipy_are_imported_by_who_uses_them(whose: str) -> None:
    pytest.importorskip("pandas")
    pytest.importorskip("scipy")
    ran = subprocess.run(
        [sys.executable, "-c", SCRIPT, whose], capture_output=True, text=True, check=True
    )
    imported = "False False" if whose == "own" else "True True"
    assert ran.stdout.splitlines() == [imported, "1 2", "5.0"]
