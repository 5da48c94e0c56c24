"""Training runs so small that a step takes milliseconds, started as a user starts them."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from pipeline.storage import Store
from pipeline.tables import Tables
from shards.cards import write_cards
from shards.pack import Packer
from shards.plan import PackSettings
from tests.shards.toys import Toy, commit
from training.checkpoints import read_torch_file
from training.cli import main
from training.saving import saved_steps

REPOSITORY = Path(__file__).resolve().parents[2]

SETTINGS: dict[str, Any] = {
    "trainer": {"accelerator": "cpu", "devices": 1, "max_steps": 6, "val_check_interval": 100},
    "model": {
        "start": {
            "scratch": {
                "block_out_channels": [8],
                "attention_levels": [0],
                "norm_num_groups": 4,
                "num_frequencies": 2,
                "condition_width": 8,
                "max_letters": 8,
            }
        },
        "train": "all",
        "optimizer": {"lr": 0.01, "schedule": "cosine"},
        "averaging": {"decay": 0.9},
        "validation": {"timesteps": [100, 800], "num_clips": 1, "num_inference_steps": 2, "guidance": 1.0},
    },
    "data": {
        "global_batch": 2,
        "batch_size": 2,
        "val_split": "train",
        "rigs": ["toy"],
        "num_val": 3,
        "num_workers": 0,
        "clips": {"num_frames": 3, "size_px": 24},
    },
    "checkpoints": {"every_n_steps": 3},
    "progress": {"every_n_steps": 1, "count_flops": False},
}


def make_shards(root: Path, num_assets: int = 4) -> Path:
    """The shards of assets with two animations each, four views by four frames, packed by the real packer."""
    tables = Tables(Store(str(root)))
    commit(tables, [Toy(seq=seq, num_views=4) for seq in range(num_assets)])
    Packer(tables, PackSettings(val_share=0.0, test_share=0.0)).pack()
    write_cards(tables)
    return root / "shards"


def settings_file(folder: Path, shards: Path) -> Path:
    """A YAML file, as a recipe is."""
    path = folder / "settings.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump({**SETTINGS, "data": {**SETTINGS["data"], "shards": str(shards)}}))
    return path


class Run:
    """A run's folder, and the command that begins it or goes on with it."""

    def __init__(self, folder: Path, shards: Path, **options: Any) -> None:
        self.folder = folder
        self.options = [f"--config={settings_file(folder, shards)}", f"--trainer.default_root_dir={folder}"]
        self.options += [f"--{name.replace('__', '.')}={value}" for name, value in options.items()]

    def arguments(self, command: str = "fit", **options: Any) -> list[str]:
        """The command line."""
        return [command, *self.options, *(f"--{name.replace('__', '.')}={value}" for name, value in options.items())]

    def __call__(self, command: str = "fit", **options: Any) -> int:
        """Run the command in this process; returns its exit code."""
        try:
            return main(self.arguments(command, **options))
        except SystemExit as end:
            return int(end.code or 0)

    def on_two_ranks(self, **options: Any) -> subprocess.CompletedProcess[str]:
        """The command with two processes that speak gloo."""
        options = {"trainer__devices": 2, "trainer__strategy": "ddp", "data__batch_size": 1, **options}
        command = [sys.executable, "-m", "training", *self.arguments(**options)]
        return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=300, check=False)

    @property
    def checkpoints(self) -> list[Path]:
        """The newest first."""
        return list(saved_steps(self.folder / "checkpoints").values())

    def state(self) -> dict[str, Any]:
        """The newest checkpoint."""
        state: dict[str, Any] = read_torch_file(self.checkpoints[0])
        return state

    def logged(self, name: str) -> dict[int, float]:
        """A curve by step; of a step that was logged twice, the later."""
        events = EventAccumulator(str(self.folder / "logs")).Reload()
        return {event.step: event.value for event in events.Scalars(name)}

    def pictures(self) -> list[str]:
        """Tags of what was shown."""
        tags: list[str] = EventAccumulator(str(self.folder / "logs")).Reload().Tags()["images"]
        return tags


def same(ours: Any, theirs: Any) -> bool:
    """Equal bit for bit, whatever is inside."""
    if isinstance(ours, torch.Tensor):
        return torch.equal(ours, theirs)
    if isinstance(ours, dict):
        return ours.keys() == theirs.keys() and all(same(value, theirs[name]) for name, value in ours.items())
    if isinstance(ours, list | tuple):
        return len(ours) == len(theirs) and all(map(same, ours, theirs))
    return bool(ours == theirs)


TRAINED = ("state_dict", "optimizer_states", "lr_schedulers", "ema", "global_step")
"""What of a checkpoint must not depend on how a run came there."""


def assert_same_training(ours: Run, theirs: Run) -> None:
    """The same weights, averages, optimizer and place in the data, bit for bit."""
    a, b = ours.state(), theirs.state()
    different = [name for name in (*TRAINED, "ClipBatches") if not same(a[name], b[name])]
    assert not different, f"{different}: {a['global_step']} and {b['global_step']} steps"


def assert_near_training(ours: Run, theirs: Run, tolerance: float = 2e-4) -> None:
    """The same weights but for the order of sums."""
    a, b = ours.state()["state_dict"], theirs.state()["state_dict"]
    for name, value in a.items():
        torch.testing.assert_close(
            value, b[name], atol=tolerance, rtol=0, msg=lambda text, name=name: f"{name}: {text}"
        )


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_shards(tmp_path_factory.mktemp("toy_shards"))


@pytest.fixture(scope="session")
def unbroken(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of six steps from beginning to end."""
    run = Run(tmp_path_factory.mktemp("unbroken"), shards)
    assert run(trainer__val_check_interval=6) == 0
    return run
