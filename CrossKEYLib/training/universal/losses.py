"""Losses of the universal anatomical embedding (Bai et al., arXiv 2311.15111); pure functions.

Descriptors have unit norm. What is ignored is masked by minus infinity before the softmax, never
multiplied by zero after it: a masked entry must not take part in the denominator.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F


def appearance(
    queries: torch.Tensor,
    keys: torch.Tensor,
    candidates: torch.Tensor,
    near: torch.Tensor,
    others: torch.Tensor,
    hard: int = 256,
    diverse: int = 256,
    temperature: float = 0.07,
) -> torch.Tensor:
    """InfoNCE of N places against their hardest and some diverse negatives, one direction.

    Args:
        queries: ``[N, D]``, the places in one view.
        keys: ``[N, D]``, the same places in the other view.
        candidates: ``[M, D]``, other places there, drawn at random. The negatives of a query are
            the ``hard`` most similar of them, and the first ``diverse`` of them.
        near: ``[N, M]`` bool, candidates within the exclusion radius of the place: the same
            anatomy, so no negatives.
        others: ``[L, D]``, places of other volumes, negatives for every query.
        hard: how many, at most.
        diverse: how many, at most.
        temperature: divides the cosines.

    Returns:
        A scalar.
    """
    if len(queries) == 0:
        return queries.sum() + keys.sum()
    # Half precision would round the logits, so a caller's autocast must not reach them.
    with torch.autocast(queries.device.type, enabled=False):
        queries = queries.float() / temperature
        positive = (queries * keys.float()).sum(1, keepdim=True)
        similarity = (queries @ candidates.float().T).masked_fill(near, -torch.inf)
        hardest = similarity.topk(min(hard, similarity.shape[1]), dim=1, sorted=False).values
        logits = torch.cat(
            [positive, hardest, similarity[:, :diverse], queries @ others.float().T], 1
        )
        return (logits.logsumexp(1) - positive[:, 0]).mean()


def prototypes(features: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Class means over all places of both volumes.

    Args:
        features: ``[M, D]``.
        labels: ``[M]`` int64; 0 is background, which has no prototype.

    Returns:
        ``(means [C, D], classes [C])``, classes in rising order.
    """
    classes, index = labels.unique(return_inverse=True)
    sums = features.new_zeros(len(classes), features.shape[1]).index_add(0, index, features)
    counts = index.bincount(minlength=len(classes)).to(features)
    kept = classes > 0
    return (sums / counts[:, None])[kept], classes[kept]


def prototypical(
    features: torch.Tensor, labels: torch.Tensor, temperature: float = 0.1
) -> torch.Tensor:
    """Prototypical supervised contrastive loss over the places of two volumes.

    ``L = -1/|C| sum_c 1/|A_c| sum_{a in A_c} log(exp(p_c.x_a / t) / sum_a' exp(p_c.x_a' / t))``
    with ``p_c`` the mean of class c and the denominator over all places, background included.

    Args:
        features: ``[M, D]``, unit norm, both volumes together.
        labels: ``[M]`` int64, 0 for background.
        temperature: t.

    Returns:
        A scalar; zero, with zero gradient, when no place has a class.
    """
    with torch.autocast(features.device.type, enabled=False):
        features = features.float() if features.dtype is not torch.float64 else features
        means, classes = prototypes(features, labels)
        if len(classes) == 0:
            return features.sum() * 0
        shares = F.log_softmax(means @ features.T / temperature, dim=1)
        own = labels == classes[:, None]
        return -(shares.masked_fill(~own, 0).sum(1) / own.sum(1)).mean()
