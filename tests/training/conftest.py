import torch

# Tiny networks on a shared machine: a second thread only waits for the first.
torch.set_num_threads(1)
