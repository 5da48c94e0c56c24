import torch

from tests.training.runs import shards, unbroken  # noqa: F401  (fixtures)

# Tiny networks on a shared machine: a second thread only waits for the first.
torch.set_num_threads(1)
