"""One training step as people write it in PyTorch: the same network, prototypes, losses and optimiser as ours, on the
same episode from the same weights, in the contiguous layout and with the full matrix of similarities."""

import torch
from torch import Tensor
from torch.nn import functional
from unet3d import UNet3D


def rows(features: Tensor) -> Tensor:
    """(1, C, d, h, w) -> (d h w, C)"""
    return features.squeeze(0).flatten(1).t()


def similarity(queries: Tensor, prototypes: Tensor, alpha: float) -> Tensor:
    """sum_k softmax_k(d)_k d_k with d_k = alpha cos(p_k, q) for each row q of (N, C): (N)."""
    d = alpha * functional.normalize(queries, dim=1) @ functional.normalize(prototypes, dim=1).t()  # (N, P)
    return (d.softmax(1) * d).sum(1)


class Trainer:
    """`settings` are those of configuration.py."""

    def __init__(self, settings: dict, weights: dict[str, Tensor], episode: dict[str, Tensor], alignment: bool) -> None:
        self.settings = settings
        self.window = tuple(settings["window"])
        self.threshold = settings["threshold"]
        self.alpha = settings["alpha"]
        self.alignment = alignment
        self.network = UNet3D(settings).train()
        self.network.load_state_dict(weights)
        self.optimiser = torch.optim.AdamW(
            self.network.parameters(),
            lr=settings["learning_rate"],
            betas=(0.9, 0.999),
            weight_decay=settings["weight_decay"],
        )
        self.images = torch.cat([episode["support_image"], episode["query_image"]])  # (2, 1, D, H, W)
        self.support = episode["support_labels"][0, 0].long()  # (D, H, W)
        self.query = episode["query_labels"][0, 0].long()
        self.count = int(self.support.max())

    def step(self) -> float:
        """One update of the weights: the loss of the query before it."""
        self.optimiser.zero_grad()
        of_support, of_query = self.network(self.images).split(1)
        scores = self._scores(of_support, self.support, of_query, self.count)
        segmentation = self._loss(scores, self.query)
        loss = segmentation
        if self.alignment:
            predicted, truth, found = self._present(scores.argmax(1)[0])
            if found > 0:
                swapped = self._loss(self._scores(of_query, predicted, of_support, found), truth)
                loss = loss + self.settings["alignment_weight"] * swapped
        loss.backward()
        torch.nn.utils.get_total_norm([p.grad for p in self.network.parameters()]).item()
        self.optimiser.step()
        return segmentation.item()

    def _scores(self, annotated: Tensor, labels: Tensor, searched: Tensor, count: int) -> Tensor:
        """Scores (1, 1 + K, D, H, W) of background and K classes."""
        masks = functional.one_hot(labels, count + 1).permute(3, 0, 1, 2)[None].float()  # (1, 1 + K, D, H, W)
        masks = functional.adaptive_avg_pool3d(masks, annotated.shape[2:])
        pooled = rows(functional.avg_pool3d(annotated, self.window))  # (windows, C)
        filled = functional.avg_pool3d(masks, self.window)[0].flatten(1) > self.threshold  # (1 + K, windows)
        queries = rows(searched)
        scores = []
        for label in range(count + 1):
            mask = masks[:, label : label + 1]
            mean = (annotated * mask).sum((2, 3, 4)) / (mask.sum() + 1e-5)  # (1, C)
            local = pooled[filled[label]]
            background_has_windows = label == 0 and len(local) > 0
            prototypes = local if background_has_windows else torch.cat([local, mean])
            scores.append(similarity(queries, prototypes, self.alpha))
        scores = torch.stack(scores).view(1, count + 1, *searched.shape[2:])
        if scores.shape[2:] == labels.shape:
            return scores
        return functional.interpolate(scores, size=labels.shape, mode="trilinear")

    def _loss(self, scores: Tensor, truth: Tensor) -> Tensor:
        count = scores.shape[1] - 1
        total = scores.new_zeros(())
        if self.settings["dice_weight"] > 0.0:
            p = scores.softmax(1)[:, 1:]
            y = functional.one_hot(truth, count + 1).permute(3, 0, 1, 2)[None][:, 1:].float()
            dice = (2 * (p * y).sum((2, 3, 4)) + 1) / (p.sum((2, 3, 4)) + y.sum((2, 3, 4)) + 1)
            total = total + self.settings["dice_weight"] * (1 - dice.mean())
        if self.settings["cross_entropy_weight"] > 0.0:
            weight = scores.new_ones(count + 1)
            weight[0] = self.settings["background_weight"]
            entropy = functional.cross_entropy(scores, truth[None], weight)
            total = total + self.settings["cross_entropy_weight"] * entropy
        return total

    def _present(self, predicted: Tensor) -> tuple[Tensor, Tensor, int]:
        """The predicted map and the support's truth without the classes that were predicted nowhere; their number."""
        found = [label for label in range(1, self.count + 1) if (predicted == label).any()]
        renumbered = torch.zeros(self.count + 1, dtype=torch.long)
        for number, label in enumerate(found, start=1):
            renumbered[label] = number
        return renumbered[predicted], renumbered[self.support], len(found)
