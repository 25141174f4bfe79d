"""A stand-in for an environment with VBench: its Python, and packages that do what their contract says, without GPU.

The classes below write the files that the real ones write, from the folder that they are given, and keep in calls.jsonl
how they were called.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

TORCH = """
class device:
    def __init__(self, kind):
        self.kind = kind

def load(path, weights_only=True):
    return weights_only

class cuda:
    @staticmethod
    def is_available():
        return GPUS > 0

    @staticmethod
    def device_count():
        return GPUS
"""
VBENCH = """
import json, os, sys
import torch

class VBench:
    def __init__(self, device, suite_file, out_dir):
        assert isinstance(device, torch.device) and device.kind == "cuda"
        self.suite_file, self.out_dir = suite_file, out_dir

    def evaluate(self, videos_path, name, prompt_list=[], dimension_list=None, local=False, read_frame=False,
                 mode="vbench_standard", **more):
        [dimension] = dimension_list
        called = dict(more, name=name, prompt_list=prompt_list, dimension=dimension, local=local, mode=mode,
                      read_frame=read_frame, gpu=os.environ.get("CUDA_VISIBLE_DEVICES"),
                      weights_only=torch.load("x"), suite=os.path.basename(self.suite_file))
        with open(os.environ["CALLS"], "a") as file:
            file.write(json.dumps(called) + "\\n")
        print("looking at", dimension)
        broken = os.environ.get("BROKEN", "")
        if broken == "raises:" + dimension:
            raise RuntimeError("CUDA error: out of memory")
        names = sorted(os.listdir(videos_path))
        suffix = os.path.splitext(names[0])[1]
        if mode == "custom_input":
            entries = [{"prompt_en": prompt_list[each], "dimension": [dimension],
                        "video_list": [os.path.join(videos_path, each)]} for each in names]
        else:
            with open(self.suite_file) as file:
                entries = [entry for entry in json.load(file) if dimension in entry["dimension"]]
            for entry in entries:
                wanted = ["%s-%d%s" % (entry["prompt_en"], k, suffix) for k in range(5)]
                entry["video_list"] = [os.path.join(videos_path, each) for each in wanted if each in names]
        details = []
        for entry in entries:
            for video in entry["video_list"]:
                with open(video, "rb") as file:
                    details.append({"video_path": video, "video_results": len(file.read()) / 100})
        mean = sum(each["video_results"] for each in details) / len(details)
        with open(os.path.join(self.out_dir, name + "_full_info.json"), "w") as file:
            json.dump(entries, file)
        if broken != "silent:" + dimension:
            with open(os.path.join(self.out_dir, name + "_eval_results.json"), "w") as file:
                json.dump({dimension: [mean, details]}, file)
"""
I2V = """
import os
from vbench import VBench

class VBenchI2V(VBench):
    def evaluate(self, videos_path, name, dimension_list, resolution):
        picture = os.path.join("vbench2_beta_i2v", "data", "crop", resolution, "fox.jpg")
        assert os.path.isfile(picture), picture
        super().evaluate(videos_path, name, dimension_list=dimension_list, resolution=resolution)
"""
OTHERS = "torchvision decord clip cv2 timm transformers pyiqa scipy easydict fvcore detectron2 dreamsim".split()  # noqa: SIM905


def make_environment(folder: Path, suite: str, *, gpus: int = 8, without: tuple[str, ...] = ()) -> Path:
    """The Python of an environment in `folder`. suite: the text of the package's suite file."""
    site = folder / "site packages"
    modules = {
        "torch": f"GPUS = {gpus}\n{TORCH}",
        "vbench": VBENCH,
        "vbench2_beta_i2v": I2V,
        **dict.fromkeys(OTHERS, ""),
    }
    for name, source in modules.items():
        if name not in without:
            (site / name).mkdir(parents=True)
            (site / name / "__init__.py").write_text(source)
    if "vbench" not in without:
        (site / "vbench" / "VBench_full_info.json").write_text(suite)
        (site / "vbench-0.1.5.dist-info").mkdir()
        (site / "vbench-0.1.5.dist-info" / "METADATA").write_text(
            "Metadata-Version: 2.1\nName: vbench\nVersion: 0.1.5\n"
        )
    python = folder / "bin" / "python"
    python.parent.mkdir()
    # Of the packages of the tests' own Python nothing is seen (-S).
    python.write_text(f"#!/bin/sh\nPYTHONPATH='{site}' exec '{sys.executable}' -S \"$@\"\n")
    os.chmod(python, 0o755)
    return python
