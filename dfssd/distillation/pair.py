"""Teacher and student in one module, so that Ultralytics trains, averages, saves and resumes them as its own.

``DistillationPair`` is a subclass of Ultralytics' ``DistillationModel`` (8.4.190) and inherits its support of the
training loop: the frozen teacher, its absence from EMA and checkpoints, the unwrapping to a plain student in
``strip_optimizer``, fusing, resuming and DDP. Construction and loss are ours. Every trainable adapter lives in
``projector``, the one place besides ``student_model`` that Ultralytics restores.

Left out on purpose: a second student or teacher forward, permanent hooks of our own (they would be pickled into
checkpoints), and a criterion attached from outside (the EMA would copy what it holds).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from ultralytics.nn.distill_model import DistillationModel
from ultralytics.utils.tal import dist2bbox, make_anchors
from ultralytics.utils.torch_utils import copy_attr

from dfssd.batches import Batch
from dfssd.config import TERM_OPTIONS
from dfssd.distillation.balance import DETECTION, GradientBalance
from dfssd.distillation.forward import ForwardPass, Maps, level_sizes
from dfssd.distillation.heads import Tap, tap_channels
from dfssd.distillation.outputs import Outputs
from dfssd.distillation.schedules import factor
from dfssd.distillation.semi_loss import SemiDetectionLoss, as_predicted, take_images
from dfssd.distillation.terms import TERMS, PairShape
from dfssd.distillation.terms.base import no_autocast
from dfssd.pseudo_labels.meter import HealthMeter
from dfssd.pseudo_labels.online import OnlineLabeler
from dfssd.pseudo_labels.records import BatchLabels

PROBE_SCALE = 1024.0
"""Loss factor while gradients are measured, so that small ones survive half precision."""


def state_hash(module: nn.Module) -> str:
    """SHA-256 over all parameters and buffers of ``module``, in order, bit by bit."""
    digest = hashlib.sha256()
    for name, value in module.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def for_inference(teacher: Any) -> Any:
    """The teacher, for inference only: its batch normalization is folded into the convolutions.

    A convolution with weight W followed by a normalization with scale g, shift b and running mean m and variance v is
    one convolution with weight g W / sqrt(v + eps) and bias b - g m / sqrt(v + eps): the same function. The weights are
    stored channels innermost, the layout of the images on a CPU.

    Args:
        teacher: Detection model; changed in place. One with an end-to-end head is left as it is: Ultralytics' folding
            would remove its one-to-many branch, whose outputs are distilled.
    """
    if getattr(teacher.model[-1], "one2one_cv2", None) is not None:
        return teacher
    return teacher.fuse(verbose=False).to(memory_format=torch.channels_last)


class DistillationPair(DistillationModel):
    """A student with a teacher that it does not train, trained by the YOLO loss plus weighted distillation terms.

    total = L_det(labeled) * N_l + trust * unsup_weight * ramp(step) * L_det(accepted pseudo boxes) * N_u
            + trust * N * sum_t weight_t * schedule_t(step) * L_t(all images)

    The weights are fixed, or follow from the gradients (:mod:`dfssd.distillation.balance`). Ultralytics sums detection
    losses over the images of a batch (a mean times N), hence the factors N. The one forward pass of the teacher serves
    the terms and, with a ``labeler``, the pseudo boxes; it sees the weak views of unlabeled images, if there are any.

    Attributes:
        projector (nn.ModuleDict): The terms with their trainable adapters, by name.
        trust (float): Factor in [0, 1] on everything that comes from the teacher; at 0 its forward pass is left out.
        labels (BatchLabels | None): The boxes of the unlabeled images in the last batch, for the health meter.
        agreement (tuple): In the last batch: anchors at which the student's best class was that of a confident teacher,
            and anchors at which the teacher was confident.
        boxes (int): Boxes, true or accepted, in the last batch.
        balance (GradientBalance | None): Sets the weights from the gradients; None: they are fixed.
        probe (bool): Measure the gradient of each term on the student in the next loss.
        gradients (dict): The last measured gradient norms: name of a weighted term, or ``det`` -> L2 norm over the
            parameters of the student.
        passes (dict): The forward passes of ``teacher`` and ``student``: :class:`ForwardPass`.
        captured (dict): Callables ``images -> Maps`` that stand in for passes in steps that measure no gradients; each
            has to serve images of any size. Empty at first; like the passes, never in a checkpoint.
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
        layers: Sequence[int],
        unsup_weight: float,
        unsup_schedule: str,
        labeler: OnlineLabeler | None,
        weigh_boxes: bool,
        balance: bool,
        new_only: bool,
    ):
        """Wrap a pair that passes the checks of :mod:`dfssd.distillation.compatibility`.

        Args:
            teacher: Trained detection model; its classes are those of the student, or the first of them; frozen, in
                eval mode.
            student: Detection model to train.
            terms: Active terms: name -> options with ``weight``, ``schedule`` and, for ``balance``, ``share``.
            layers: Layers to compare, the same numbers in both models; empty: the inputs of the heads.
            unsup_weight: Weight of the YOLO loss on pseudo-labeled images.
            unsup_schedule: Schedule of that weight.
            labeler: Makes pseudo boxes from the teacher's forward pass; None: they are in the batch.
            weigh_boxes: Weight each pseudo box by its score in the YOLO loss; else all count as true boxes.
            balance: Let the weights follow from the gradients and the shares of the terms.
            new_only: Labels cover the new classes only: those that the teacher does not know.
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
        copy_attr(self, student)
        self.strides = [int(s) for s in self.student_model.model[-1].stride]
        self.unsup_weight, self.unsup_schedule = unsup_weight, unsup_schedule
        self.labeler, self.weigh_boxes = labeler, weigh_boxes
        self.known = self.teacher_model.model[-1].nc
        self.new_only = new_only
        self.trust = 1.0
        self.labels: BatchLabels | None = None
        self.agreement = (0.0, 0.0)
        self.semi_loss: SemiDetectionLoss | None = None
        self.weights = {name: float(o["weight"]) for name, o in terms.items()}
        self.schedules = {name: str(o["schedule"]) for name, o in terms.items()}
        shares = {name: float(o["share"]) for name, o in terms.items()} if balance else {}
        self.balance = GradientBalance(self.weights, shares) if balance else None
        self.progress = (0, 1, 1)
        self.probe = False
        self.boxes = 0
        self.gradients: dict[str, float] = {}
        self.values: dict[str, Tensor] = {}
        self.captured: dict[str, Callable[[Tensor], Maps]] = {}
        self.passes = self._forward_passes(())
        self.projector = nn.ModuleDict(self._build_terms(terms)).to(device)
        self.passes = self._forward_passes(self.taps)

    def _forward_passes(self, taps: Collection[Tap]) -> dict[str, ForwardPass]:
        return {
            "teacher": ForwardPass(self.teacher_model, self.teacher_feats_idx[:-1], taps, frozen=True),
            "student": ForwardPass(self.student_model, self.feats_idx[:-1], taps),
        }

    def _register_feature_hooks(self) -> None:
        """Ultralytics' permanent hooks are not needed: :class:`ForwardPass` sets its own for each pass."""

    def __getstate__(self) -> dict[str, Any]:
        """Ultralytics' state without the passes, which hold the networks a second time."""
        return {**super().__getstate__(), "passes": {}, "captured": {}}

    def _run(self, name: str, images: Tensor) -> Maps:
        """The forward pass of ``teacher`` or ``student``."""
        replaced = None if self.probe else self.captured.get(name)
        return (replaced or self.passes[name])(images)

    def _build_terms(self, terms: Mapping[str, Mapping[str, Any]]) -> dict[str, nn.Module]:
        """Construct the terms for the channels that a trial forward pass shows."""
        channels = self.student_model.yaml.get("channels", 3)
        image = torch.zeros(1, channels, 64, 64, device=next(self.student_model.parameters()).device)
        mode = self.student_model.training
        self.student_model.eval()
        with torch.no_grad():
            theirs, own = (self.passes[name](image).feats for name in ("teacher", "student"))
        self.student_model.train(mode)
        head = self.student_model.model[-1]
        shape = PairShape(
            student_channels=tuple(x.shape[1] for x in own),
            teacher_channels=tuple(x.shape[1] for x in theirs),
            reg_max=head.reg_max,
            nc=self.known,
            student_taps=tap_channels(head),
            teacher_taps=tap_channels(self.teacher_model.model[-1]),
        )
        built: dict[str, nn.Module] = {}
        for name, options in terms.items():
            own = {k: v for k, v in options.items() if k not in TERM_OPTIONS}
            built[name] = TERMS[name](shape, **own)
        return built

    @property
    def taps(self) -> frozenset[Tap]:
        """The maps inside the detection heads that the terms need."""
        return frozenset().union(*(term.taps for term in self.projector.children()))  # type: ignore[arg-type]

    def set_progress(self, step: int, total: int, per_epoch: int) -> None:
        """Set the progress for the schedules: batches done, batches in all, batches per epoch."""
        self.progress = (step, total, per_epoch)

    def loss(self, batch: Batch, preds: Any = None) -> tuple[Tensor, dict[str, Tensor]]:
        """YOLO loss on both kinds of labels plus the distillation terms.

        Args:
            batch: The batch; in validation one of Ultralytics, without the fields that are ours.
            preds: Predictions of the student, given by the validator.

        Returns:
            Vector of losses to be summed, and the detached items by column name. The names never change: in
            validation, where there is no teacher, the unsupervised and distillation items are 0.
        """
        if not self.training:
            return self._validation_loss(batch, preds)
        images = batch["img"]
        levels = level_sizes(images, self.strides)
        guided = self.trust > 0 and (len(self.projector) > 0 or self.labeler is not None)
        theirs = self._run("teacher", self._teacher_views(batch)) if guided else None
        own = self._run("student", images)
        boxes = self._pseudo_boxes(batch, theirs, levels)
        ramp = factor(self.unsup_schedule, *self.progress)
        preds = as_predicted(own, levels)
        vectors, items = self._detection_loss()(preds, boxes, self.trust * self.unsup_weight * ramp)
        self.agreement, values = (0.0, 0.0), {}
        if theirs is not None:
            student = self._outputs(own, self.student_model, levels)
            teacher = self._outputs(theirs, self.teacher_model, levels)
            self.agreement = _agreement(student.scores, teacher.scores, ~batch["labeled"])
            values = {name: term(student, teacher, boxes) for name, term in self.projector.items()}
        self.values = {name: value.detach() for name, value in values.items()}
        self.boxes = len(boxes["batch_idx"])
        factors = self._factors(vectors, values, images.shape[0])
        for name, term in self.projector.items():
            if guided:
                weighted = factors[name] * values[name]
            else:  # adapters stay in the graph, so that all processes use the same parameters
                weighted = images.new_zeros(()) + 0.0 * sum(p.sum() for p in term.parameters())
            items[name] = weighted.detach()
            vectors.append((images.shape[0] * weighted).reshape(1))
        return torch.cat(vectors), items

    def _validation_loss(self, batch: Batch, preds: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """The student's YOLO loss, with zeros for the items that exist in training only."""
        vector, items = self.student_model.loss(batch, preds)
        zero = torch.zeros(1, device=vector.device)
        absent = [f"u_{k}" for k in items] + list(self.weights)
        return torch.cat([vector, zero.expand(len(absent))]), {**items, **dict.fromkeys(absent, zero[0])}

    def weight(self, name: str) -> float:
        """Present weight of a term, without schedule and trust."""
        return self.balance.weight(name) if self.balance else self.weights[name]

    def _factors(self, detection: list[Tensor], values: Mapping[str, Tensor], n: int) -> dict[str, float]:
        """Factor of each term in this batch; measures the gradients first, if this is a probe.

        Args:
            detection: Vectors of the detection loss.
            values: Unweighted terms; none without a teacher.
            n: Images in the batch.
        """
        norms = {}
        if self.probe and values:
            norms = self._gradient_norms({DETECTION: torch.cat(detection), **{k: n * v for k, v in values.items()}})
        if self.balance and norms:
            self.balance.update(norms)
        factors = {k: self.trust * self.weight(k) * factor(self.schedules[k], *self.progress) for k in values}
        if norms:
            self.gradients = {k: v if k == DETECTION else factors[k] * v for k, v in norms.items()}
        return factors

    def _teacher_views(self, batch: Batch) -> Tensor:
        """The images as the teacher sees them: the weak views where there are any."""
        views = batch["img"]
        if "weak_img" in batch and len(batch["weak_img"]):
            views = views.clone()
            views[~batch["labeled"]] = batch["weak_img"].to(views.dtype)
        return views

    def _pseudo_boxes(self, batch: Batch, theirs: Maps | None, levels: list[tuple[int, int]]) -> Batch:
        """The batch with the boxes of this step: true ones, and for unlabeled images those of the teacher."""
        pseudo = ~batch["labeled"][batch["batch_idx"].long()]
        known = BatchLabels(
            batch_idx=batch["batch_idx"][pseudo].float(),
            cls=batch["cls"][pseudo].float(),
            bboxes=batch["bboxes"][pseudo].float(),
            score=batch["score"][pseudo].float(),
            ignore_batch_idx=batch["ignore_batch_idx"].float(),
            ignore_bboxes=batch["ignore_bboxes"].float(),
            ignore_source=batch["ignore_source"],
        )
        boxes: Batch = {**batch, "score": batch["score"].float()}
        unlabeled = (~batch["labeled"]).nonzero().flatten()
        if self.labeler is not None and theirs is not None and len(unlabeled):
            size = (batch["img"].shape[2], batch["img"].shape[3])
            raw = take_images(as_predicted(theirs, levels), unlabeled)
            raw = raw.get("one2many", raw)
            known = self.labeler(decode(raw, self.teacher_model.stride), unlabeled, size, known)
            boxes["batch_idx"] = torch.cat([batch["batch_idx"][~pseudo].float(), known.batch_idx])
            boxes["cls"] = torch.cat([batch["cls"][~pseudo].float(), known.cls])
            boxes["bboxes"] = torch.cat([batch["bboxes"][~pseudo].float(), known.bboxes])
            boxes["score"] = torch.cat([batch["score"][~pseudo].float(), known.score])
            boxes["ignore_batch_idx"] = known.ignore_batch_idx
            boxes["ignore_bboxes"] = known.ignore_bboxes
            boxes["ignore_source"] = known.ignore_source
        self.labels = known
        if not self.weigh_boxes:
            boxes["score"] = torch.ones_like(boxes["score"])
        return boxes

    def _detection_loss(self) -> SemiDetectionLoss:
        """The YOLO loss, built on the first batch: by then the trainer has set the class weights."""
        if self.semi_loss is None:
            if getattr(self.student_model, "criterion", None) is None:
                self.student_model.criterion = self.student_model.init_criterion()
            first = self.known if self.new_only else 0
            self.semi_loss = SemiDetectionLoss(self.student_model.criterion, labels_from=first, pseudo_until=self.known)
        return self.semi_loss

    def _outputs(self, maps: Maps, model: Any, levels: list[tuple[int, int]]) -> Outputs:
        """The maps of one network as the value object that the terms read."""
        raw = maps.heads[0]
        return Outputs(
            feats=maps.feats,
            boxes=raw["boxes"],
            scores=raw["scores"][:, : self.known],  # the classes that both networks know
            new_scores=raw["scores"][:, self.known :],
            levels=levels,
            hidden=maps.hidden,
            head=model.model[-1],
        )

    def _gradient_norms(self, losses: Mapping[str, Tensor]) -> dict[str, float]:
        """L2 norm of the gradient that each loss puts on the student's parameters, mean over the processes."""
        parameters = [p for p in self.student_model.parameters() if p.requires_grad]
        norms = {}
        for name, loss in losses.items():
            if not loss.requires_grad:
                norms[name] = loss.new_zeros(())
                continue
            with no_autocast(loss):  # as in the real backward pass: autocast would cast fp32 gradients down
                grads = torch.autograd.grad(loss.sum() * PROBE_SCALE, parameters, retain_graph=True, allow_unused=True)
            squares = [g.float().norm() for g in grads if g is not None] or [loss.new_zeros(())]
            norms[name] = torch.stack(squares).norm() / PROBE_SCALE
        table = torch.stack([norm.float() for norm in norms.values()])
        if dist.is_initialized():  # all processes must get the same weights
            dist.all_reduce(table)
            table /= dist.get_world_size()
        return dict(zip(norms, table.tolist(), strict=True))


def decode(raw: Mapping[str, Any], stride: Tensor) -> Tensor:
    """Raw head outputs -> boxes and scores as the head itself decodes them, but in fp32 throughout.

    Under half precision the head rounds coordinates to as much as 4 px in an image of 640 px.

    Args:
        raw: ``boxes`` (N, 4 * bins, A) logits (distances themselves with one bin), ``scores`` (N, nc, A) logits, and
            ``feats``, the maps of the levels.
        stride: Strides of the levels [px].

    Returns:
        (N, 4 + nc, A) fp32: boxes xywh [px], class scores in (0, 1).
    """
    boxes, scores = (raw[k].detach().float() for k in ("boxes", "scores"))
    with no_autocast(boxes):
        n, channels, anchors = boxes.shape
        points, strides = make_anchors([f.float() for f in raw["feats"]], stride, 0.5)
        if channels > 4:
            bins = torch.arange(channels // 4, dtype=torch.float32, device=boxes.device)
            boxes = torch.einsum("nsba,b->nsa", boxes.view(n, 4, -1, anchors).softmax(2), bins)
        xywh = dist2bbox(boxes, points.T[None], xywh=True, dim=1) * strides.T
        return torch.cat([xywh, scores.sigmoid()], 1)


def _agreement(student: Tensor, teacher: Tensor, chosen: Tensor) -> tuple[float, float]:
    """Confident anchors of the teacher at which the student has the same best class, and confident anchors.

    Args:
        student: Class logits of the student, (N, nc, A).
        teacher: Class logits of the teacher, (N, nc, A).
        chosen: (N,) bool, the images to count.
    """
    score, best = teacher.detach()[chosen].sigmoid().max(1)
    confident = score >= HealthMeter.SURE
    same = student.detach()[chosen].argmax(1) == best
    return float((same & confident).sum()), float(confident.sum())
