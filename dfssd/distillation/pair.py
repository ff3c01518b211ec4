"""Teacher and student in one module, so that Ultralytics trains, averages, saves and resumes them as its own.

``DistillationPair`` is a subclass of Ultralytics' ``DistillationModel`` (8.4.190) and inherits what that class knows
about training loops: the frozen teacher, its absence from EMA and checkpoints, the unwrapping to a plain student in
``strip_optimizer``, fusing, resuming and DDP. Construction and loss are ours. Every trainable adapter lives in
``projector``, the one place besides ``student_model`` that Ultralytics restores.

Left out on purpose: a second student or teacher forward, hooks of our own (they would be pickled into checkpoints),
and a criterion attached from outside (the EMA would copy what it holds).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from ultralytics.nn.distill_model import DistillationModel
from ultralytics.utils.tal import make_anchors
from ultralytics.utils.torch_utils import copy_attr

from dfssd.distillation.outputs import Outputs
from dfssd.distillation.schedules import factor
from dfssd.distillation.terms import TERMS, PairShape

PROBE_SCALE = 1024.0
"""Loss factor while gradients are measured, so that small ones survive half precision."""


class IgnoringBCE(nn.Module):
    """Binary cross-entropy on logits that is zero at ignored anchors, except where a box is assigned to them.

    A drop-in for the ``bce`` of Ultralytics' detection loss: logits and targets (N, A, nc) -> losses (N, A, nc).
    :attr:`ignored` is None or a (N, A) bool mask, set before each call of the loss.
    """

    def __init__(self) -> None:
        """Nothing is ignored at first."""
        super().__init__()
        self.bce = nn.BCEWithLogitsLoss(reduction="none")
        self.ignored: Tensor | None = None

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Elementwise loss with the ignored, unassigned anchors set to zero."""
        loss = self.bce(logits, targets)
        if self.ignored is None:
            return loss
        silent = self.ignored & (targets.sum(-1) <= 0)
        return loss.masked_fill(silent[..., None], 0.0)


def ignored_anchors(boxes: Tensor, batch_idx: Tensor, n: int, points: Tensor) -> Tensor:
    """Which anchor points lie inside an ignore box of their image.

    Args:
        boxes: (M, 4) ignore boxes, xywh centre format, normalised 0-1.
        batch_idx: (M,) image of each box.
        n: Number of images.
        points: (A, 2) anchor points x, y, normalised 0-1.

    Returns:
        (n, A) bool mask.
    """
    inside = (points[None] - boxes[:, None, :2]).abs() <= boxes[:, None, 2:] / 2  # (M, A, 2)
    mask = torch.zeros(n, len(points), dtype=torch.int32, device=points.device)
    return mask.index_add_(0, batch_idx.long(), inside.all(-1).int()) > 0


def take_images(preds: Any, index: Tensor) -> Any:
    """The images ``index`` of a nested prediction structure (dicts, lists and tensors with the image axis first)."""
    if isinstance(preds, Mapping):
        return {k: take_images(v, index) for k, v in preds.items()}
    if isinstance(preds, (list, tuple)):
        return [take_images(v, index) for v in preds]
    return preds[index]


def take_boxes(batch: Mapping[str, Any], index: Tensor, n: int, prefix: str = "") -> dict[str, Tensor]:
    """The boxes of the images ``index``, with image numbers counted anew.

    Args:
        batch: Batch with ``<prefix>batch_idx``, ``<prefix>bboxes`` and, for an empty prefix, ``cls``.
        index: (K,) image numbers to keep.
        n: Images in the batch.
        prefix: ``""`` for boxes to learn, ``"ignore_"`` for ignore boxes.
    """
    renumber = torch.full((n,), -1, dtype=torch.long, device=index.device)
    renumber[index] = torch.arange(len(index), device=index.device)
    new = renumber[batch[f"{prefix}batch_idx"].long()]
    keep = new >= 0
    names = ("bboxes",) if prefix else ("bboxes", "cls")
    return {"batch_idx": new[keep].float(), **{k: batch[f"{prefix}{k}"][keep] for k in names}}


def state_hash(module: nn.Module) -> str:
    """SHA-256 over all parameters and buffers of ``module``, in order, bit by bit."""
    digest = hashlib.sha256()
    for name, value in module.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


class DistillationPair(DistillationModel):
    """A student with a frozen teacher, trained by the YOLO loss plus weighted distillation terms.

    total = L_det(labelled) * N_l + unsup_weight * L_det(accepted pseudo boxes) * N_u
            + N * sum_t weight_t * schedule_t(step) * L_t(all images)

    Ultralytics sums detection losses over the images of a batch (a mean times N), hence the factors N.

    Attributes:
        projector (nn.ModuleDict): The terms with their trainable adapters, by name.
        probe (bool): Measure the gradient of each term on the student in the next loss.
        gradients (dict): The last measured gradient norms: term name or ``det`` -> L2 norm over student parameters.
    """

    teacher_model: Any
    student_model: Any
    projector: nn.ModuleDict

    def __init__(
        self,
        teacher: nn.Module,
        student: nn.Module,
        *,
        terms: Mapping[str, Mapping[str, Any]],
        layers: Sequence[int] = (),
        unsup_weight: float = 1.0,
    ):
        """Wrap a pair that :mod:`dfssd.distillation.compatibility` has found to match.

        Args:
            teacher: Trained detection model with the classes of the student in its order; frozen, in eval mode.
            student: Detection model to train.
            terms: Active terms: name -> options with ``weight`` and ``schedule``.
            layers: Layers to compare, the same numbers in both models; empty: the inputs of the heads.
            unsup_weight: Weight of the YOLO loss on pseudo-labelled images.
        """
        nn.Module.__init__(self)
        device = next(student.parameters()).device
        self.teacher_model = teacher.to(device)
        self._freeze_teacher()
        self.student_model = student
        own, theirs = self.get_distill_layers(student), self.get_distill_layers(teacher)
        self.feats_idx = [*layers, own[-1]] if layers else own
        self.teacher_feats_idx = [*layers, theirs[-1]] if layers else theirs
        self._teacher_feats: dict[int, Any] = {}
        self._student_feats: dict[int, Any] = {}
        self._teacher_hooks: list[Any] = []
        self._student_hooks: list[Any] = []
        self._register_feature_hooks()
        copy_attr(self, student)
        self.unsup_weight = unsup_weight
        self.weights = {name: (float(o["weight"]), str(o["schedule"])) for name, o in terms.items()}
        self.progress = (0, 1, 1)
        self.probe = False
        self.gradients: dict[str, float] = {}
        self.values: dict[str, Tensor] = {}
        self.projector = nn.ModuleDict(self._build_terms(terms)).to(device)

    def _build_terms(self, terms: Mapping[str, Mapping[str, Any]]) -> dict[str, nn.Module]:
        """Construct the terms for the widths that a dry forward pass shows."""
        channels = self.student_model.yaml.get("channels", 3)
        image = torch.zeros(1, channels, 64, 64, device=next(self.student_model.parameters()).device)
        mode = self.student_model.training
        self.student_model.eval()
        with torch.no_grad():
            self.teacher_model(image)
            self.student_model(image)
        self.student_model.train(mode)
        levels = range(len(self.feats_idx) - 1)
        head = self.student_model.model[-1]
        shape = PairShape(
            student_channels=tuple(self._student_feats[i].shape[1] for i in levels),
            teacher_channels=tuple(self._teacher_feats[i].shape[1] for i in levels),
            reg_max=head.reg_max,
            nc=head.nc,
        )
        self._clear_features()
        built: dict[str, nn.Module] = {}
        for name, options in terms.items():
            own = {k: v for k, v in options.items() if k not in {"weight", "schedule"}}
            built[name] = TERMS[name](shape, **own)
        return built

    def _clear_features(self) -> None:
        self._teacher_feats.clear()
        self._student_feats.clear()

    def set_progress(self, step: int, total: int, per_epoch: int) -> None:
        """Tell the schedules where training stands: batches done, batches in all, batches per epoch."""
        self.progress = (step, total, per_epoch)

    def loss(self, batch: dict[str, Any], preds: Any = None) -> tuple[Tensor, dict[str, Tensor]]:
        """YOLO loss on both kinds of labels plus the distillation terms.

        Args:
            batch: ``img`` (N, 3, H, W) in 0-1, ``cls`` (M, 1), ``bboxes`` (M, 4) xywh 0-1, ``batch_idx`` (M,); in
                training also ``labeled`` (N,) bool and the ignore boxes ``ignore_bboxes``, ``ignore_batch_idx``.
            preds: Predictions of the student, given by the validator.

        Returns:
            Vector of losses to be summed, and the detached items by column name. The names never change: in
            validation, where there is no teacher, the unsupervised and distillation items are 0.
        """
        if not self.training:
            vector, items = self.student_model.loss(batch, preds)
            zero = torch.zeros(1, device=vector.device)
            silent = [f"u_{k}" for k in items] + list(self.weights)
            return torch.cat([vector, zero.expand(len(silent))]), {**items, **dict.fromkeys(silent, zero[0])}
        self._clear_features()
        with torch.no_grad():
            self.teacher_model(batch["img"])
        preds = self.student_model(batch["img"])
        vectors, items = self._detection_loss(preds, batch)
        student = self._outputs(self._student_feats)
        teacher = self._outputs(self._teacher_feats)
        n = batch["img"].shape[0]
        self.values = {}
        for name, term in self.projector.items():
            weight, schedule = self.weights[name]
            value = term(student, teacher, batch)
            self.values[name] = value.detach()
            weighted = weight * factor(schedule, *self.progress) * value
            items[name] = weighted.detach()
            vectors.append((n * weighted).reshape(1))
        if self.probe:
            self._measure_gradients(vectors)
        self._clear_features()
        return torch.cat(vectors), items

    def _detection_loss(self, preds: Any, batch: dict[str, Any]) -> tuple[list[Tensor], dict[str, Tensor]]:
        """YOLO loss of the labelled and, weighted, of the pseudo-labelled images, each with its own normaliser."""
        if getattr(self.student_model, "criterion", None) is None:
            self.student_model.criterion = self.student_model.init_criterion()
        criterion = self.student_model.criterion
        heads = [getattr(criterion, name, None) for name in ("one2many", "one2one")]  # of an end-to-end model
        branches: list[Any] = [part for part in (criterion, *heads) if hasattr(part, "bce")]
        for branch in branches:
            if not isinstance(branch.bce, IgnoringBCE):
                branch.bce = IgnoringBCE()
        n = batch["img"].shape[0]
        many = preds.get("one2many", preds)
        points, _ = make_anchors(many["feats"], self.student_model.stride, 0.5)
        sizes = torch.cat([points.new_tensor(f.shape[:1:-1]).expand(f[0, 0].numel(), 2) for f in many["feats"]])
        vectors: list[Tensor] = []
        items: dict[str, Tensor] = {}
        for prefix, chosen, weight in (("", batch["labeled"], 1.0), ("u_", ~batch["labeled"], self.unsup_weight)):
            index = chosen.nonzero().flatten()
            if len(index):
                ignore = take_boxes(batch, index, n, "ignore_")
                mask = ignored_anchors(ignore["bboxes"], ignore["batch_idx"], len(index), points / sizes)
                for branch in branches:
                    branch.bce.ignored = mask
                vector, part = criterion(take_images(preds, index), take_boxes(batch, index, n))
                vectors.append(weight * vector)
            else:
                names = [k.removeprefix("u_") for k in items] or list(branches[0].loss_names)
                part = dict.fromkeys(names, points.new_zeros(()))
            items.update({f"{prefix}{k}": v * weight for k, v in part.items()})
        return vectors, items

    def _outputs(self, captured: dict[int, Any]) -> Outputs:
        """Captured layer outputs as the value object that the terms read."""
        head = captured[len(self.feats_idx) - 1]
        raw = head[1] if isinstance(head, tuple) else head
        raw = raw.get("one2many", raw)
        return Outputs(
            feats=[captured[i] for i in range(len(self.feats_idx) - 1)],
            boxes=raw["boxes"],
            scores=raw["scores"],
            level_sizes=[f.shape[2] * f.shape[3] for f in raw["feats"]],
        )

    def _measure_gradients(self, vectors: list[Tensor]) -> None:
        """Norm of the gradient that the detection loss and each term put on the student's parameters."""
        parameters = [p for p in self.student_model.parameters() if p.requires_grad]
        terms = list(self.projector)
        detection = torch.cat(vectors[: len(vectors) - len(terms)]).sum()
        losses = {"det": detection, **dict(zip(terms, vectors[len(vectors) - len(terms) :]))}
        self.gradients = {}
        for name, loss in losses.items():
            if not loss.requires_grad:
                self.gradients[name] = 0.0
                continue
            grads = torch.autograd.grad(loss.sum() * PROBE_SCALE, parameters, retain_graph=True, allow_unused=True)
            norms = [g.float().norm() for g in grads if g is not None] or [loss.new_zeros(())]
            self.gradients[name] = float(torch.stack(norms).norm() / PROBE_SCALE)
