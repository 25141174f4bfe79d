"""Runs VBench on one dimension, by the Python of its environment, which need not know `sora`.

    python driver.py --probe        prints what the environment has, as JSON
    python driver.py JOB.json       scores; the fields of the job are those that `main` reads

The exit code is 0 when the result file is there.
"""

from __future__ import annotations

import functools
import json
import os
import sys

#: Import names of what VBench needs; of the last three each is for some dimensions only.
PACKAGES = (
    "torch",
    "torchvision",
    "decord",
    "clip",
    "cv2",
    "timm",
    "transformers",
    "pyiqa",
    "scipy",
    "easydict",
    "fvcore",
)
SOME = ("detectron2", "dreamsim", "vbench2_beta_i2v")


def probe() -> dict:
    """What is here. Of `vbench` only its place and version are looked up: importing it needs most other packages."""
    from importlib.metadata import PackageNotFoundError, version
    from importlib.util import find_spec

    spec = find_spec("vbench")
    try:
        found = version("vbench")
    except PackageNotFoundError:
        found = None
    gpus = 0
    if find_spec("torch") is not None:
        import torch

        gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return {
        "folder": next(iter(spec.submodule_search_locations)) if spec and spec.submodule_search_locations else None,
        "version": found,
        "missing": [name for name in (*PACKAGES, *SOME) if find_spec(name) is None],
        "gpus": gpus,
    }


def main(job: dict) -> None:
    """Score one dimension of clips. Files are written into job["output"], under the name of the dimension."""
    import torch

    dimension = job["dimension"]
    if dimension == "motion_smoothness":
        # 0.1.5 reads its own checkpoint in a way that torch 2.6 and later refuse unless told.
        torch.load = functools.partial(torch.load, weights_only=False)
    # As text the device does not do: the detector of objects fails.
    device = torch.device("cuda")
    if job["is_i2v"]:
        from vbench2_beta_i2v import VBenchI2V

        bench = VBenchI2V(device, job["suite"], job["output"])
        bench.evaluate(videos_path=job["videos"], name=dimension, dimension_list=[dimension], resolution=job["crop"])
    else:
        from vbench import VBench

        bench = VBench(device, job["suite"], job["output"])
        bench.evaluate(
            videos_path=job["videos"],
            name=dimension,
            prompt_list=job["prompts"],
            dimension_list=[dimension],
            local=False,
            read_frame=False,
            mode=job["mode"],
            imaging_quality_preprocessing_mode=job["resize"],
        )
    result = os.path.join(job["output"], dimension + "_eval_results.json")
    if not os.path.isfile(result):
        sys.exit("VBench ended without writing " + result)


if __name__ == "__main__":
    # The modules beside this one are not for that environment.
    sys.path = [place for place in sys.path if place != os.path.dirname(os.path.abspath(__file__))]
    if sys.argv[1:] == ["--probe"]:
        print(json.dumps(probe()))
    else:
        with open(sys.argv[1], encoding="utf-8") as file:
            main(json.load(file))
