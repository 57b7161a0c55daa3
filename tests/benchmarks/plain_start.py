"""The start that no program can do without: torch and timm, a backbone, and one optimizer step of it on noise.

Prints when that was done, in seconds since 1970.

python tests/benchmarks/plain_start.py BACKBONE SIZE BATCH
"""

from __future__ import annotations

import sys
import time

import timm
import torch

backbone, size, batch = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
network = timm.create_model(backbone, features_only=True)
optimizer = torch.optim.AdamW(network.parameters())
maps = network(torch.rand(batch, 3, size, size))
torch.autograd.backward(torch.stack([each.square().mean() for each in maps]).sum())
optimizer.step()
print(time.time())
