"""The command line of the training side: Lightning's, with our callbacks, our folders and our way of going on."""

import logging
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from rich.console import Console

from pipeline.cli import EXIT_INTERRUPTED, EXIT_OK, Help, usage_error
from training.checkpoints import CheckpointError, read_torch_file, save
from training.data_module import ClipBatches
from training.module import MultiViewVideoTraining
from training.reporting import Progress
from training.saving import Checkpoints, StoppedEarlyError, newest_whole

EXIT_STOPPED = 75
"""SIGTERM or SIGUSR1 came, the run has saved and is not done: give the same command again, or requeue the job."""

DEFAULTS: dict[str, Any] = {
    "accelerator": "auto",
    "default_root_dir": "runs/train",
    "max_epochs": -1,
    "check_val_every_n_epoch": None,
    "val_check_interval": 1000,
    "log_every_n_steps": 1,
    "gradient_clip_val": 1.0,
    "num_sanity_val_steps": 0,
    "use_distributed_sampler": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}
"""Where Lightning's own differ: steps instead of epochs, our order of samples, lines instead of a bar."""

UNHELPFUL = (
    "does not have many workers",
    "The `srun` command",
    "Found .* in eval mode",
    "`isinstance.treespec",
    "across ranks is zero",
    "Jsonargparse",
    "was deprecated in v4",
)
"""Warnings of Lightning about what is meant to be so, or about itself."""

OVERVIEW = """Train MV-VDM, the multi-view video diffusion model, on shards.

A run is one YAML file (training/configs) and a folder (trainer.default_root_dir) with its checkpoints, logs and sampled
clips. The same command again goes on where the run stands, on any number of devices."""

EXAMPLES = """Examples:
  mv4d train --config training/configs/tiny.yaml --data.shards demo-data       a CPU, minutes
  mv4d train --config training/configs/small.yaml --data.shards data           one GPU
  mv4d train --config training/configs/tiny.yaml --data.shards demo-data --print_config
  mv4d train validate --config training/configs/tiny.yaml --data.shards demo-data
  mv4d train sample   --config training/configs/tiny.yaml --data.shards demo-data
  mv4d train export   --config training/configs/tiny.yaml --data.shards demo-data --to model

Without a command, `mv4d train` is `mv4d train fit`; `python -m training` is the same.
`mv4d train fit --help` lists every option; with --config FILE --print_config it shows what they are set to.
tensorboard --logdir runs   shows losses, speed and sampled clips.

exit codes: 0 done, 2 wrong usage, 3 the machine or the numbers could not go on, 75 stopped by SIGTERM or SIGUSR1 with a
checkpoint (requeue it), 130 interrupted with one."""


COMMANDS = ("fit", "validate", "test", "sample", "export")
NO_OPTIONS = {"model", "train_dataloaders", "val_dataloaders", "dataloaders", "datamodule", "weights_only", "verbose"}


class MultiViewTrainer(Trainer):
    """Lightning's, which can sample and export too."""

    def sample(
        self, model: MultiViewVideoTraining, datamodule: ClipBatches | None = None, ckpt_path: str | None = None
    ) -> None:
        """Sample the clips of the validation split from their first frames, into `sampled/` of the run.

        Args:
            model: The module.
            datamodule: The data.
            ckpt_path: As in `fit`.
        """
        batches: Any = self.predict(model, datamodule=datamodule, ckpt_path=ckpt_path)
        if self.is_global_zero:
            console = Console(highlight=False)
            for batch in batches or []:
                for key, decibels in batch:
                    console.print(f"{key}  {decibels:.1f} dB", soft_wrap=True)
            console.print(f"in {Path(self.default_root_dir) / 'sampled'}", soft_wrap=True)

    def export(
        self,
        model: MultiViewVideoTraining,
        datamodule: ClipBatches | None = None,
        ckpt_path: str | None = None,
        to: str = "model",
    ) -> None:
        """Write the averaged weights as a diffusers folder, with `animate3d_motion_modules.ckpt` as published in it.

        Args:
            model: The module.
            datamodule: Not used.
            ckpt_path: As in `fit`.
            to: The folder.
        """
        assert ckpt_path is not None
        model.configure_model()
        checkpoint = read_torch_file(ckpt_path)
        model.load_state_dict(checkpoint["state_dict"])
        model.on_load_checkpoint(checkpoint)
        with model.averaged():
            model.pipeline.save_pretrained(to)
            save(model.unet, Path(to) / "animate3d_motion_modules.ckpt")
        Console(highlight=False).print(f"{to}: a diffusers folder, and the published layout", soft_wrap=True)


class SaveConfigOfFit(SaveConfigCallback):
    """Keeps the settings of the last `fit` beside its logs."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Other commands leave them as they are."""
        if stage == "fit":
            super().setup(trainer, pl_module, stage)


class TrainingCLI(LightningCLI):
    """LightningCLI with our parts."""

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Commands, and which arguments of their methods are no options."""
        return dict.fromkeys(COMMANDS, NO_OPTIONS)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Our callbacks, which are always there, and one seed for everything."""
        parser.add_lightning_class_args(Checkpoints, "checkpoints")
        parser.add_lightning_class_args(Progress, "progress")
        parser.link_arguments("seed_everything", "model.seed", compute_fn=int)
        parser.link_arguments("seed_everything", "data.seed", compute_fn=int)

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """From a list or from the command line."""
        self.config = parser.parse_args(args)

    def instantiate_classes(self) -> None:
        """Make everything; a value that a class refuses is wrong usage."""
        try:
            super().instantiate_classes()
        except ValueError as error:
            usage_error(str(error))

    def before_fit(self) -> None:
        """Go on where the run stands."""
        self._begin_from(needed=False)

    def before_validate(self) -> None:
        """Look at the run's newest checkpoint."""
        self._begin_from(needed=True)

    before_test = before_sample = before_export = before_validate

    def _begin_from(self, *, needed: bool) -> None:
        """Put the newest whole checkpoint of the run in the place of `last`, which is the default."""
        options = self.config_init[self.subcommand]
        wanted = options.get("ckpt_path") or "last"
        if wanted == "none":
            options["ckpt_path"] = None
        elif wanted == "last":
            folder = Checkpoints.folder(self.trainer)
            newest = newest_whole(folder)
            if newest is None and needed:
                raise CheckpointError(folder, "not_found", "this run has no checkpoint")
            options["ckpt_path"] = str(newest) if newest else None

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """With a log that goes on in the same folder."""
        config = self._get(self.config_init, "trainer", default={})
        if config.get("logger") in (None, True):
            kwargs["logger"] = TensorBoardLogger(save_dir=config["default_root_dir"], name="logs", version="")
        return super().instantiate_trainer(**kwargs)


def command_line(command: str) -> type[TrainingCLI]:
    """The command line with one command: to make the parser of each takes a second."""

    class OneCommand(TrainingCLI):
        @staticmethod
        def subcommands() -> dict[str, set[str]]:
            return {command: NO_OPTIONS}

    return OneCommand if command in COMMANDS else TrainingCLI


def run(arguments: Sequence[str]) -> None:
    """Parse a command line and do what it says."""
    command_line(arguments[0])(
        MultiViewVideoTraining,
        ClipBatches,
        args=list(arguments),
        trainer_class=MultiViewTrainer,
        trainer_defaults=DEFAULTS,
        seed_everything_default=0,
        save_config_callback=SaveConfigOfFit,
        save_config_kwargs={"overwrite": True},
        parser_kwargs={"prog": "mv4d train", "description": OVERVIEW, "epilog": EXAMPLES, "formatter_class": Help},
        auto_configure_optimizers=False,
        load_from_checkpoint_support=False,
    )


def main(arguments: Sequence[str]) -> int:
    """`mv4d train` and `python -m training`; returns the exit code."""
    given = list(arguments)
    commands = TrainingCLI.subcommands()
    if not given or (given[0] not in commands and given[0] not in ("-h", "--help")):
        given = ["fit", *given]
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    for message in UNHELPFUL:
        warnings.filterwarnings("ignore", message=f".*{message}.*")
    try:
        run(given)
    except (MisconfigurationException, CheckpointError) as error:
        usage_error(str(error))
    except StoppedEarlyError as stopped:
        return _stopped(stopped)
    return EXIT_OK


def _stopped(stopped: StoppedEarlyError) -> int:
    # Lightning's launcher kills all ranks as soon as one that it started ends with another code than 0.
    if getattr(rank_zero_only, "rank", 0):
        return EXIT_OK
    print(f"{stopped}; the same command goes on from there", file=sys.stderr)
    return EXIT_INTERRUPTED if stopped.signal_number == 2 else EXIT_STOPPED
