"""The guide's job templates for SkyPilot and Kubernetes agree with what camox exits with."""

from __future__ import annotations

from typing import Any

import yaml

from camoxpert_cli.commands.guide import FOLDER
from camoxpert_cli.errors import (
    CamoxError,
    CheckpointError,
    DataError,
    DeviceError,
    PeerLostError,
    TrainingError,
    UsageError,
)
from camoxpert_cli.signals import EXIT_CODES
from tests.helpers.command_lines import code_blocks

UNFINISHED = 85
# What another start does not fix.
FINAL = [UsageError.exit_code, DataError.exit_code, CheckpointError.exit_code, TrainingError.exit_code]
PAGE = (FOLDER / "clusters.md").read_text(encoding="utf-8")


def templates() -> list[dict[str, Any]]:
    """Those for SkyPilot and for Kubernetes."""
    return [yaml.safe_load(block) for block in code_blocks(PAGE, "yaml")]


def test_an_unfinished_run_has_a_code_of_its_own() -> None:
    """No error, signal or shell exits with it."""
    known = {CamoxError.exit_code, *FINAL, DeviceError.exit_code, PeerLostError.exit_code, *EXIT_CODES}

    assert UNFINISHED not in known
    assert UNFINISHED < 126
    assert f"| {UNFINISHED} |" in PAGE
    assert f"| {', '.join(map(str, FINAL))} |" in PAGE


def test_skypilot_recovers_unfinished_runs() -> None:
    """However often; others only so many times."""
    skypilot, _ = templates()
    recovery = skypilot["resources"]["job_recovery"]

    assert recovery["recover_on_exit_codes"] == [UNFINISHED]
    assert recovery["max_restarts_on_errors"] < 5
    assert "--checkpoint-dir /runs/" in skypilot["run"]
    assert skypilot["file_mounts"]["/runs"]["mode"] == "MOUNT_CACHED"


def test_kubernetes_tells_ends_apart() -> None:
    """The first rule that matches counts: unfinished, then errors, then pods that were evicted."""
    _, kubernetes = templates()
    spec = kubernetes["spec"]
    rules = [(rule["action"], rule.get("onExitCodes", {}).get("values")) for rule in spec["podFailurePolicy"]["rules"]]

    assert rules == [("Ignore", [UNFINISHED]), ("FailJob", FINAL), ("Ignore", None)]
    assert spec["podFailurePolicy"]["rules"][2]["onPodConditions"][0]["type"] == "DisruptionTarget"
    assert spec["template"]["spec"]["restartPolicy"] == "Never"  # a failure policy requires it
    assert spec["completionMode"] == "Indexed"  # sets JOB_COMPLETION_INDEX, which turns --continue on


def test_kubernetes_mounts_what_it_names() -> None:
    """Every volume is mounted, and the run folder is on one."""
    pod = templates()[1]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}

    assert mounts.keys() == {volume["name"] for volume in pod["volumes"]}
    assert "--checkpoint-dir=/runs/first" in container["args"]
    assert mounts["runs"] == "/runs"
    assert mounts["shm"] == "/dev/shm"
