"""A DAG for Airflow 3: a pool is deduplicated and curated, and its card written.

Put it into the folder of DAGs. ``metacurate`` must be on the PATH of the workers, and all of them
must see the data. A task that fails is tried again, and its command goes on where it stopped.
"""

from __future__ import annotations

import json
import subprocess
from datetime import timedelta
from typing import Any

from airflow.sdk import dag, task
from airflow.sdk.exceptions import AirflowFailException

TOO_FEW_IMAGES = 3  # the exit code of ``pool download``: again it would do nothing new


def metacurate(*words: str) -> dict[str, Any]:
    """Run a command; its result, as ``--json`` prints it, becomes the task's XCom."""
    done = subprocess.run(
        ["metacurate", *words, "--json"], stdout=subprocess.PIPE, text=True, check=False
    )  # notes, progress and errors stay in the task's log
    if done.returncode == TOO_FEW_IMAGES:
        raise AirflowFailException("too few images: look at the counts of the download")
    done.check_returncode()
    return json.loads(done.stdout)


@dag(
    schedule=None,
    params={"pool": "pool/", "metadata": "wordnet", "t": 20_000, "out": "run"},
    default_args={"retries": 2, "retry_delay": timedelta(minutes=5)},
    tags=["metacurate"],
)
def curate_a_pool() -> None:
    """Deduplicate, curate, check, and write the card."""

    @task
    def dedup(params: dict[str, Any]) -> dict[str, Any]:
        return metacurate("pool", "dedup", params["pool"], "--out", f"{params['out']}/clean")

    @task
    def curate(params: dict[str, Any], deduplicated: dict[str, Any]) -> dict[str, Any]:
        return metacurate(
            "curate", f"{deduplicated['out']}/pool", "--metadata", params["metadata"],
            "--t", str(params["t"]), "--out", f"{params['out']}/curated",
        )  # fmt: skip

    @task
    def check(card: dict[str, Any]) -> str:
        if card["kept"]["pairs"] == 0:
            raise AirflowFailException("nothing was kept: do the texts and the metadata agree?")
        return card["out"]

    @task
    def card(folder: str) -> dict[str, Any]:
        return metacurate("card", folder, "--license", "other")

    card(check(curate(deduplicated=dedup())))


curate_a_pool()
