"""Write the weights of the fake model."""

from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

TENSORS = {"gain": np.array([0.5], dtype=np.float32), "null": np.zeros(4, dtype=np.float32)}

if __name__ == "__main__":
    save_file(TENSORS, Path(__file__).with_name("sora_fakes") / "model.safetensors")
