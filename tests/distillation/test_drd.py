"""DRD: no, one and two defects, the order of defects, images apart, and graphs that stay."""

from __future__ import annotations

import pytest
import torch
from torchvision.ops import roi_align

from dfssd.distillation.terms import drd, instances
from dfssd.distillation.terms.drd import PixelGraph, PixelRelation
from dfssd.distillation.terms.instances import patches, reason, samples, table
from tests.distillation import slow_terms as slow
from tests.distillation.test_terms import SHAPE, make_outputs, value_of


def maps(seed: int, dtype=torch.float64) -> torch.Tensor:
    return torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def instance_relation(student: torch.Tensor, teacher: torch.Tensor, *boxes: torch.Tensor) -> torch.Tensor:
    return instances.instance_relation([student], [teacher], *boxes)


def pixel_relation(student: torch.Tensor, teacher: torch.Tensor, graph: PixelGraph) -> torch.Tensor:
    return drd.pixel_relation([student], [teacher], [graph])


def roi_patches(x: torch.Tensor, boxes: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
    """(K, 6, 6) of the boxes in the order of their images."""
    kept, there = table(boxes.to(x.dtype), image, len(x))
    (lines,) = samples(kept, [(x.shape[1], x.shape[2])])
    return patches(x[:, None], lines)[0][there]


BOXES = torch.tensor([[0.1, 0.1, 0.5, 0.6], [0.4, 0.3, 0.9, 0.9], [0.2, 0.5, 0.4, 0.8]])
IMAGE = torch.tensor([0, 0, 1])


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_any_number_of_defects(count: int) -> None:
    student = maps(1).requires_grad_()
    value = instance_relation(student, maps(2), BOXES[:count], IMAGE[:count])
    value.backward()
    assert torch.isfinite(value) and (value > 0) == (count > 0) and torch.isfinite(student.grad).all()
    assert instance_relation(maps(1), maps(1), BOXES[:count], IMAGE[:count]).item() == pytest.approx(0, abs=1e-25)


def test_order_of_defects_does_not_matter_and_their_image_does() -> None:
    value = instance_relation(maps(1), maps(2), BOXES, IMAGE)
    order = torch.tensor([2, 0, 1])
    assert instance_relation(maps(1), maps(2), BOXES[order], IMAGE[order]).item() == pytest.approx(value.item())
    assert instance_relation(maps(1), maps(2), BOXES, torch.tensor([0, 1, 1])).item() != pytest.approx(value.item())


def test_reasoning_by_hand() -> None:
    """Two like defects of one image share; a single one of another image only meets itself."""
    vectors = torch.tensor([[[2.0, 0.0, 0.0, 0.0], [0.0, 2.0, 0.0, 0.0]], [[0.0, 0.0, 3.0, 0.0], [9.0, 9.0, 9.0, 9.0]]])
    own, other = torch.softmax(torch.tensor([4 / 2, 0.0]), 0).tolist()
    apart = torch.tensor([[[0.0, 0.0]], [[0.0, instances.APART]]])
    found, _ = reason(vectors, apart)
    expected = torch.tensor([[2 + 2 * own, 2 * other, 0, 0], [2 * other, 2 + 2 * own, 0, 0]])
    torch.testing.assert_close(found[0], expected)
    assert found[1, 0].tolist() == [0, 0, 6, 0]


def test_patches_are_those_of_torchvision() -> None:
    x = torch.randn(2, 6, 10, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    outside = torch.tensor([[-0.3, -0.2, 0.2, 0.3], [0.8, 0.7, 1.4, 1.2], [2.0, 2.0, 3.0, 3.0], [0.5, 0.5, 0.5, 0.5]])
    boxes, image = torch.cat([BOXES, outside]).double(), torch.tensor([0, 0, 0, 0, 1, 1, 1])
    scaled = boxes * torch.tensor([10.0, 6.0, 10.0, 6.0], dtype=torch.float64)
    expected = roi_align(x[:, None], torch.cat([image[:, None], scaled], 1), 6, sampling_ratio=2, aligned=True)
    torch.testing.assert_close(roi_patches(x, boxes, image), expected[:, 0])


def test_patch_of_a_ramp_by_hand() -> None:
    """A map that grows by one per column and ten per row, and a box of 6 x 3 cells: the middles of its bins."""
    x = (torch.arange(10.0) + 10 * torch.arange(8.0)[:, None])[None]
    patch = roi_patches(x, torch.tensor([[0.2, 0.25, 0.8, 0.625]]), torch.tensor([0]))[0]
    columns, rows = 2 + torch.arange(6.0), 2 + (torch.arange(6.0) + 0.5) / 2 - 0.5
    torch.testing.assert_close(patch, columns + 10 * rows[:, None])


def test_instances_come_from_inside_their_box() -> None:
    """Places of the student's map outside the box act through the attention of the whole map alone, which is weak."""
    x, y = maps(1, torch.float32).abs(), maps(2, torch.float32)
    box = BOXES[2:], IMAGE[2:]
    value = instance_relation(x, y, *box).item()
    outside, inside = x.clone(), x.clone()
    outside[1, :, 0] += 0.01
    inside[1, :, 5, 2] += 1.0
    assert instance_relation(outside, y, *box).item() == pytest.approx(value, rel=0.05)
    assert abs(instance_relation(inside, y, *box).item() - value) > 0.1 * value


def test_gradient() -> None:
    student = maps(1).requires_grad_()
    assert torch.autograd.gradcheck(lambda s: instance_relation(s, maps(2), BOXES, IMAGE), (student,), atol=1e-4)


def test_largest_defects_are_kept_in_each_image() -> None:
    boxes = torch.tensor([[0, 0, 0.1, 0.1], [0, 0, 0.5, 0.5], [0, 0, 0.3, 0.3], [0, 0, 0.2, 0.2]])
    image = torch.tensor([1, 1, 1, 0])
    kept, there = table(boxes, image, 3, most=2)
    assert there.tolist() == [[True, False], [True, True], [False, False]]
    assert torch.equal(kept[0, 0], boxes[3]) and torch.equal(kept[1], boxes[1:3]) and not kept[2].any()
    assert not kept[0, 1].any()
    assert table(torch.zeros(0, 4), torch.zeros(0, dtype=torch.long), 2)[0].shape == (2, 0, 4)


def test_table_holds_every_box_once_in_its_image() -> None:
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(5, (100,), generator=generator)
    boxes = torch.rand(100, 4, generator=generator).sort(1).values
    for most in (3, 20, 64):
        kept, there = table(boxes, image, 6, most)
        expected = slow.largest_per_image(boxes, image, most)
        found = [(i, *box) for i in range(6) for box in kept[i][there[i]].tolist()]
        assert sorted(found) == sorted((int(image[k]), *boxes[k].tolist()) for k in expected)


def test_graphs_are_fixed_by_their_seed_and_are_no_parameters() -> None:
    torch.manual_seed(1)
    state = torch.random.get_rng_state()
    graph = PixelGraph(4, 3, torch.Generator().manual_seed(0))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not list(graph.parameters()) and len(list(graph.buffers())) == 5
    again = PixelGraph(4, 3, torch.Generator().manual_seed(0))
    assert all(torch.equal(a, b) for a, b in zip(graph.buffers(), again.buffers(), strict=True))
    assert pixel_relation(maps(1), maps(1), graph).item() == pytest.approx(0, abs=1e-25)
    x = maps(1).requires_grad_()
    assert torch.autograd.gradcheck(lambda s: pixel_relation(s, maps(2), graph), (x,), atol=1e-4)
    assert pixel_relation(7 * maps(1) - 2, maps(1), graph).item() == pytest.approx(0, abs=1e-4)


def test_graph_by_hand() -> None:
    graph = PixelGraph(2, 1, torch.Generator().manual_seed(0))
    x = maps(3, torch.float32)[:, :2]
    v, b = graph.values, graph.bases
    z = torch.einsum("sc,nchw,mk,nkhw->nsm", v, x, b, x) / 64
    h = torch.einsum("ts,nsm->ntm", graph.over_states, (torch.einsum("nsm,km->nsk", z, graph.over_nodes) + z).relu())
    y = torch.einsum("ct,ntm,mk,nkhw->nchw", graph.back, h, b, x)
    y = (y - y.mean((0, 2, 3), keepdim=True)) / (y.var((0, 2, 3), keepdim=True, correction=0) + 1e-5).sqrt()
    torch.testing.assert_close(graph(x), x + y, rtol=1e-3, atol=1e-4)


def test_resampled_graphs_change_with_every_batch_and_fixed_ones_do_not() -> None:
    student, teacher = make_outputs(False, 1), make_outputs(True, 2)
    for graphs, same in (("fixed", True), ("resample", False)):
        term = PixelRelation(SHAPE, graphs=graphs)
        torch.manual_seed(0)
        first, second = (value_of(term, student, teacher).item() for _ in range(2))
        assert (first == second) is same


def test_graphs_are_saved_with_the_adapters() -> None:
    term, other = PixelRelation(SHAPE, seed=1), PixelRelation(SHAPE, seed=2)
    student, teacher = make_outputs(False, 1), make_outputs(True, 2)
    assert value_of(term, student, teacher) != value_of(other, student, teacher)
    other.load_state_dict(term.state_dict())
    assert value_of(term, student, teacher) == value_of(other, student, teacher)
