import re
from typing import Any

import pytest

from pipeline import doctor
from pipeline.cli import EXIT_FINDINGS, EXIT_OK

REPORT: dict[str, Any] = {
    "blender_version": "4.5.15 LTS", "python_version": "3.11.9", "problem": "", "sandbox_lacks": [], "gpu_files": [],
    "gpus": [], "device": "CPU", "why": "no GPU found", "gl": "Mesa/X.org llvmpipe", "gl_problem": "software",
}  # fmt: skip


def findings(**changes: Any) -> dict[str, doctor.Finding]:
    report = REPORT | changes
    found = [doctor._blender(report, "python3"), doctor._sandbox(report), doctor._cycles(report), doctor._eevee(report)]
    return {finding.what: finding for finding in found}


def test_a_machine_without_a_gpu_is_fine() -> None:
    found = findings()
    assert [finding.state for finding in found.values()] == ["ok", "ok", "ok", "note"]
    assert found["Cycles draws on"].found == "CPU: no GPU found"


def test_a_gpu_that_cannot_be_used_is_noted() -> None:
    assert findings(gpu_files=["/dev/nvidia0"])["Cycles draws on"].state == "note"
    found = findings(
        gpus=["OPTIX NVIDIA L4"], device="OPTIX NVIDIA L4", why="the only one", gl_problem="", gl="NVIDIA L4"
    )
    assert [finding.state for finding in found.values()] == ["ok"] * 4


def test_a_device_that_was_asked_for_and_is_absent_is_missing() -> None:
    finding = findings(device="", why="there is no optix device")["Cycles draws on"]
    assert (finding.state, finding.advice) == ("missing", "there is no optix device")


def test_missing_libraries_are_named_with_the_command_that_installs_them() -> None:
    finding = findings(blender_version="", problem="libSM.so.6: cannot open shared object file")["Blender (bpy)"]
    assert finding.state == "missing"
    assert finding.advice.startswith("sudo apt-get install -y libgl1")
    assert findings(sandbox_lacks=["landlock"])["Sandbox"].state == "note"


@pytest.mark.blender
def test_doctor_starts_blender_in_its_sandbox_and_says_what_draws(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert doctor.main(["--device", "cpu"]) == EXIT_OK
    lines = capsys.readouterr().out.splitlines()
    assert any(re.search(r"ok .*Blender \(bpy\) +\d+\.\d+\.\d+", line) for line in lines)
    assert any(re.search(r"ok .*Cycles draws on +CPU: as --blender.device says", line) for line in lines)


@pytest.mark.blender
def test_doctor_names_an_interpreter_without_blender(capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.main(["--blender_python", "/usr/bin/env"]) == EXIT_FINDINGS
    assert "missing" in capsys.readouterr().out
