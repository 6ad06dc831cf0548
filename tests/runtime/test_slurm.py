"""The script for Slurm: run by bash with programs that only note what they are given."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from command_lines import check
from conftest import REPOSITORY

SCRIPT = REPOSITORY / "examples" / "slurm" / "metacurate.sbatch"
NOTED = """#!/usr/bin/env bash
line=$(printf '%s\\x1f' "$(basename "$0")" "$@")
printf '%s\\n' "$line" >>"$NOTES"
case "$(basename "$0") $*" in
    "scontrol "*) printf 'node1\\nnode2\\nnode3\\n' ;;
    *hostname*) echo 10.0.0.1 fe80::1 ;;
    "srun "*) exec sleep 60 ;;
    "metacurate "*) until [ "$(grep -c start "$NOTES")" -ge "$STARTS" ]; do sleep 0.02; done ;;
esac
"""


@pytest.fixture
def noted(tmp_path: Path) -> dict[str, str]:
    """An environment with the programs that the script calls."""
    for name in ("scontrol", "srun", "ray", "metacurate"):
        (tmp_path / name).write_text(NOTED)
        (tmp_path / name).chmod(0o755)
    job = {"JOB_ID": "12345", "JOB_NODELIST": "node[1-3]", "CPUS_PER_TASK": "32"}
    return {
        **os.environ,
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "NOTES": str(tmp_path / "notes"),
        **{f"SLURM_{name}": value for name, value in job.items()},
    }


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize("nodes", [1, 3])
def test_the_script_starts_ray_and_gives_commands_that_there_are(
    nodes: int, noted: dict[str, str], tmp_path: Path
) -> None:
    given = ["my crawl/*.wat.gz", "wordnet", str(tmp_path / "out")]
    environment = {**noted, "SLURM_JOB_NUM_NODES": str(nodes), "STARTS": str(min(nodes, 2))}
    run = subprocess.run(
        ["bash", str(SCRIPT), *given], env=environment, check=False, capture_output=True, text=True,
        timeout=60,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    lines = Path(noted["NOTES"]).read_text().splitlines()
    calls = [line.removesuffix("\x1f").split("\x1f") for line in lines]
    started = [call for call in calls if call[0] == "srun" and "ray" in call]
    assert len(started) == min(nodes, 2)
    assert "--nodelist=node1" in started[0]
    assert "--head" in started[0]
    assert nodes == 1 or {"--nodes=2", "--exclude=node1"} <= set(started[1])
    chain = [call[1:] for call in calls if call[0] == "metacurate"]
    assert [call[0] for call in chain] == ["pool", "pool", "curate"]
    assert chain[0][2] == given[0]
    for call in chain:
        assert call[-4:] == ["--engine", "ray", "--address", "10.0.0.1:32345"]
        check(call)


def test_a_job_whose_ray_does_not_start_ends(noted: dict[str, str], tmp_path: Path) -> None:
    for name, ends in (("srun", 'case "$*" in *hostname*) echo 10.0.0.1 ;; *) exit 1 ;; esac'),
                       ("ray", "exit 1")):  # fmt: skip
        (tmp_path / name).write_text(f"#!/usr/bin/env bash\n{ends}\n")
    environment = {**noted, "SLURM_JOB_NUM_NODES": "1"}
    run = subprocess.run(
        ["bash", str(SCRIPT), "a", "wordnet", "b"], env=environment, check=False, timeout=60
    )
    assert run.returncode != 0
    assert not any(
        line.startswith("metacurate") for line in Path(noted["NOTES"]).read_text().splitlines()
    )
