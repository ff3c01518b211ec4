"""Find defects in images with an exported folder of OpenVINO, on a processor, a GPU, or an NPU of Intel.

    python find_defects.py RUN/deploy/student_openvino_model IMAGE_OR_FOLDER ... [--device CPU] [--exact]

Needs numpy, onnxruntime, openvino, pillow, and PyYAML. Scaling, thresholds, and suppression of boxes are those of the
``infer.py`` beside the folder, in the ``deploy/`` that it comes from. Prints a line of JSON for each image. AGPL-3.0.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import openvino
import yaml


def main() -> int:
    """Print the verdict and the boxes of each image; 2 if one cannot be read."""
    parser = argparse.ArgumentParser(description="Find defects in images with a folder of OpenVINO.")
    parser.add_argument("model", type=Path, help="the folder, in the deploy/ that it comes from")
    parser.add_argument("source", nargs="+", type=Path, help="images and folders")
    parser.add_argument("--device", default="CPU", help="CPU, GPU, or NPU")
    parser.add_argument("--exact", action="store_true", help="32 bits, where the device would compute with fewer")
    given, code = parser.parse_args(), 0
    sys.path.insert(0, str(given.model.resolve().parent))
    import infer

    class Detector(infer.Detector):
        """The same with another runtime: what the ONNX file says there, ``metadata.yaml`` says here."""

        def __init__(self, folder: Path, device: str, exact: bool) -> None:
            about = yaml.safe_load((folder / "metadata.yaml").read_text(encoding="utf-8"))
            self.names, self.facts, self.fixed = about["names"], about["dfssd"], True
            own = self.facts.get("thresholds", {})
            self.thresholds = np.array([own.get(name, infer.CONFIDENCE) for name in self.names.values()], np.float32)
            (self.height, self.width), self.stride = about["imgsz"], about["stride"]
            hints = {"PERFORMANCE_HINT": "LATENCY"}  # for one image after another; THROUGHPUT: for many at once
            hints |= {"INFERENCE_PRECISION_HINT": "f32"} if exact else {}
            self.network = openvino.Core().compile_model(next(folder.glob("*.xml")), device, hints)

        def __call__(self, image: np.ndarray) -> np.ndarray:
            pixels = infer.letterbox(image, self.height, self.width).transpose(2, 0, 1)[None]
            output = self.network(pixels.astype(np.float32) / np.float32(255))[self.network.output(0)]
            return self.boxes(output[0], image, None)

    detector = Detector(given.model, given.device, given.exact)
    if "preprocess" in detector.facts:
        parser.error(f"the training images were changed ({detector.facts['preprocess']}): use dfssd predict")
    kinds = infer.Image.registered_extensions()
    for path in (file for one in given.source for file in (sorted(one.rglob("*")) if one.is_dir() else [one])):
        if path in given.source or path.suffix.lower() in kinds:
            try:
                found = detector(infer.read(path, detector.facts.get("bits", 16))).tolist()
            except OSError as e:
                code = 2
                print(f"error: {path}: {e}", file=sys.stderr)
                continue
            boxes = [{"class": detector.names[int(row[5])], "score": row[4], "box": row[:4]} for row in found]
            print(json.dumps({"image": str(path), "verdict": "NG" if boxes else "OK", "boxes": boxes}), flush=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
