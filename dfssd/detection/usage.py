"""The section of a report on how the files of a detector are used."""

from __future__ import annotations

from dfssd.detection.run_files import DetectionFiles
from dfssd.reporting.sections import Lines


def usage_section(run: DetectionFiles) -> Lines:
    """Command lines for prediction, validation, and further formats."""
    export, student = run.record.export, run.record.test.get("student")
    imgsz = export.input[-1] if export and export.input else run.imgsz
    confidence = max(0.01, (student.confidence if student else None) or 0.25)
    return [
        "## How to use the files",
        "",
        *_deploy_lines(run),
        "The files are plain Ultralytics and ONNX, too; they do not need this program. In this folder, with `pip "
        "install ultralytics onnxruntime`:",
        "",
        "```",
        f"yolo predict model=weights/student.pt source=FOLDER_OF_IMAGES imgsz={imgsz} conf={confidence:.2f}",
        f"yolo predict model=weights/student.onnx source=FOLDER_OF_IMAGES imgsz={imgsz} conf={confidence:.2f}",
        f"yolo val model=weights/student.pt data=splits/data.yaml split=test imgsz={imgsz}",
        "```",
        "",
        "`conf` is the score from which a box is reported: a lower one finds more defects and raises more false "
        "alarms. The value above balances the two on the validation images. Ultralytics and what is trained with it "
        "are under AGPL-3.0.",
    ]


def _deploy_lines(run: DetectionFiles) -> Lines:
    """What to do with the folder that is handed over; nothing if there is none."""
    if not run.record.export or not run.record.export.file:
        return []
    return [
        "`deploy/` is what you hand over: `student.onnx` knows its classes, thresholds chosen on validation images, "
        "and how images are prepared. All of this runs without PyTorch (the first line with numpy, onnxruntime, and "
        "pillow alone):",
        "",
        "```",
        "python deploy/infer.py FOLDER_OF_IMAGES                    # a file to read and to change; prints JSON",
        "dfssd predict FOLDER_OF_IMAGES model=deploy/student.onnx   # OK/NG, pictures, JSON, CSV; video, cameras",
        "dfssd serve model=deploy/student.onnx                      # over HTTP, with a page to drop photos on",
        "```",
        "",
        "Further formats, compared and listed in the table above (the second with 8 bits):",
        "",
        "```",
        "dfssd export . format=openvino,torchscript",
        "dfssd export . format=openvino int8=true",
        "```",
        "",
    ]
