"""Tests of plugins run on the CPU, whatever the machine has: GPUs are checked by `examples/gpu_check.py`."""

import os

os.environ["CUDA_VISIBLE_DEVICES"] = ""  # read when CUDA is first asked for; processes that tests start inherit it
