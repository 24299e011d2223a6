"""The peers' side of compare.py, which starts it with one JSON object as its argument; the protocol is stage.rs's.

`settings` in that object are those of configuration.py.
"""

import json
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Every stage imports what it needs: memory before its first call is that of its own libraries.
Call = Callable[[], Any]


def slic(order: dict) -> Call:
    from skimage.segmentation import slic as segment

    unit, spacing_mm = _read_unit(order["image"])
    return lambda: segment(
        unit,
        n_segments=order["k"],
        compactness=0.05,
        max_num_iter=10,
        channel_axis=None,
        spacing=spacing_mm,
        enforce_connectivity=True,
        start_label=1,
    )


def augment(order: dict) -> Call:
    import numpy
    import torchio
    from safetensors.numpy import load_file

    episode = load_file(Path(order["inputs"]) / "episode_paper.safetensors")
    settings = order["settings"]
    matrix = numpy.diag([*episode["spacing_mm"][::-1], 1.0])

    def volume(name: str) -> Any:
        return numpy.ascontiguousarray(episode[name][0].transpose(0, 3, 2, 1))  # (1, x, y, z)

    def both_signs(zyx: list[float]) -> tuple[float, ...]:
        return tuple(end for value in reversed(zyx) for end in (-value, value))

    subject = torchio.Subject(
        image=torchio.ScalarImage(tensor=volume("support_image"), affine=matrix),
        mask=torchio.LabelMap(tensor=volume("support_labels"), affine=matrix),
    )
    transform = torchio.Compose(
        [
            torchio.RandomAffine(
                scales=tuple(settings["scales"]) * 3,
                degrees=both_signs(settings["degrees_zyx"]),
                translation=both_signs(settings["translation_mm"]),
            ),
            torchio.RandomElasticDeformation(
                num_control_points=tuple(reversed(settings["control_points"])),
                max_displacement=tuple(reversed(settings["max_displacement_mm"])),
                locked_borders=settings["locked_borders"],
            ),
            torchio.RandomGamma(log_gamma=tuple(settings["log_gamma"])),
        ]
    )

    def apply() -> list[float]:
        transform(subject)
        return []

    return apply


def alp(order: dict) -> Call:
    import torch
    from safetensors.torch import load_file
    from torch.utils.checkpoint import checkpoint

    from training import rows, similarity

    _use_threads(order)
    inputs = load_file(Path(order["inputs"]) / "alp.safetensors")
    features = inputs["features"].requires_grad_()
    prototypes = inputs["prototypes"].requires_grad_()

    def score() -> list[float]:
        queries = rows(features)
        if order["blocked"]:
            blocks = queries.split(2048)
            scores = torch.cat([checkpoint(similarity, q, prototypes, 20.0, use_reentrant=False) for q in blocks])
        else:
            scores = similarity(queries, prototypes, 20.0)
        outcome = (scores.view_as(inputs["gradient"]) * inputs["gradient"]).sum()
        gradients = torch.autograd.grad(outcome, (features, prototypes))
        return [outcome.item(), *(gradient.norm().item() for gradient in gradients)]

    return score


def step(order: dict) -> Call:
    from safetensors.torch import load_file

    from training import Trainer

    _use_threads(order)
    name, folder = order["config"], Path(order["inputs"])
    weights = load_file(folder / f"weights_{name}.safetensors")
    episode = load_file(folder / f"episode_{name}.safetensors")
    trainer = Trainer(order["settings"], weights, episode, order["alignment"])
    return lambda: [trainer.step()]


def quality(order: dict) -> Call:
    """No stage to time: scores the regions of others."""
    return list


def score_regions(path: str, organs: str) -> dict[str, float]:
    """Number of regions; achievable segmentation accuracy: sum_r max_c |r and c| / N over organs and background c;
    boundary recall: the share of the organs' in-plane borders with a region's border at most 2 voxels away in-plane."""
    import numpy
    from safetensors.numpy import load_file
    from scipy.ndimage import maximum_filter

    regions = load_file(path)["regions"].squeeze().astype(numpy.int64)
    truth, _ = _read(organs)
    truth = truth.round().astype(numpy.int64)
    table = numpy.zeros((regions.max() + 1, truth.max() + 1), numpy.int64)
    numpy.add.at(table, (regions.ravel(), truth.ravel()), 1)

    def borders(labels: numpy.ndarray) -> numpy.ndarray:
        found = numpy.zeros(labels.shape, bool)
        found[:, :, :-1] |= labels[:, :, 1:] != labels[:, :, :-1]
        found[:, :-1] |= labels[:, 1:] != labels[:, :-1]
        return found

    wanted = borders(truth)
    near = maximum_filter(borders(regions), size=(1, 5, 5), mode="constant")
    return {
        "regions": len(numpy.unique(regions)),
        "accuracy": float(table.max(1).sum() / regions.size),
        "recall": float(near[wanted].mean()) if wanted.any() else 1.0,
    }


def _read(path: str) -> tuple[Any, list[float]]:
    """Voxels [z, y, x] in the canonical frame, and their spacing in this order."""
    import nibabel
    import numpy

    scan = nibabel.as_closest_canonical(nibabel.load(path))
    voxels = numpy.asarray(scan.dataobj, numpy.float32).transpose(2, 1, 0)
    return numpy.ascontiguousarray(voxels), [float(mm) for mm in reversed(scan.header.get_zooms()[:3])]


def _read_unit(path: str) -> tuple[Any, list[float]]:
    import numpy

    voxels, spacing_mm = _read(path)
    low, high = voxels.min(), numpy.percentile(voxels, 99.5)
    return numpy.minimum((voxels - low) / (high - low), 1.0).astype(numpy.float32), spacing_mm


def _use_threads(order: dict) -> None:
    import torch

    torch.set_num_threads(order["threads"])


def _numbers(outcome: Any) -> list[float]:
    return outcome if isinstance(outcome, list) else [float(outcome.max())]


def _write_regions(path: str, regions: Any) -> None:
    import numpy
    from safetensors.numpy import save_file

    save_file({"regions": regions.astype(numpy.float32)}, path)


def _answer(request: dict, call: Call, last: Any) -> tuple[dict, Any]:
    match request:
        case {"calls": calls}:
            started = time.perf_counter()
            for _ in range(calls):
                last = call()
            seconds = (time.perf_counter() - started) / calls
            return {"seconds": seconds, "numbers": _numbers(last)}, last
        case {"regions": path}:
            _write_regions(path, last)
            return {"written": True}, last
        case {"score": path, "organs": organs}:
            return score_regions(path, organs), last
    raise ValueError(f"no request that this side knows: {request}")


def main() -> None:
    warnings.filterwarnings("ignore")
    order = json.loads(sys.argv[1])
    stages = {"slic": slic, "augment": augment, "alp": alp, "step": step, "quality": quality}
    call = stages[order["stage"]](order)
    print(json.dumps({"ready": True}), flush=True)
    last = None
    for line in sys.stdin:
        answer, last = _answer(json.loads(line), call, last)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
