"""Fit the model of the trust to known right and wrong registrations, and tell how far it holds.

    python -m Testing.Studies.trust_fit pairs.jsonl [--write Resources/Models/trust.json]
    python -m Testing.Studies.trust_fit pairs.jsonl --judge Resources/Models/trust.json

The first fits a logistic regression with weights that are not negative. Every figure that it prints
comes from a fit without the person concerned, and the limits are chosen on those. The second prints
the same table of pairs that had no part in the fit, by a model as it is.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit, logit
from scipy.stats import norm

from CrossKEYLib.trust.confidence import FEATURES, Term, TrustModel

from .trust_evidence import OWN
from .trust_rows import Rows, pair_confidence, read_rows, weights_of
from .trust_table import Judgement, table

L2 = 0.02  # on weights, each in standard deviations of its feature
LOWEST = 0.05  # quantile of wrong results; what is weaker counts no less
HIGHEST = 0.5  # quantile of right results; what is stronger makes up for nothing
WRONG_ACCEPTED = 0.005  # of pairs that do not belong together, at most
WRONG_SHOWN = 0.04  # of them, accepted or doubtful, at most
AHEAD = 0.25  # log-odds between the strongest of those that stay below a limit, and the limit
COVERED = 0.9


def fit(rows: Rows, names: Sequence[str], l2: float = L2) -> TrustModel:
    """Weights and ranges; a model without limits yet."""
    weight, sign = weights_of(rows), np.where(rows.right, 1.0, -1.0)
    low = _quantile(rows.features[~rows.right], weight[~rows.right], LOWEST)
    high = np.maximum(low, _quantile(rows.features[rows.right], weight[rows.right], HIGHEST))
    x = rows.features.clip(low, high)
    scale = x.std(0).clip(1e-6)
    x = (x - low) / scale

    def loss(theta: np.ndarray) -> tuple[float, np.ndarray]:
        margin = sign * (x @ theta[1:] + theta[0])
        slope = -sign * weight * expit(-margin)
        value = float(weight @ np.logaddexp(0, -margin)) + l2 / 2 * float(theta[1:] @ theta[1:])
        return value, np.concatenate([[slope.sum()], x.T @ slope + l2 * theta[1:]])

    bounds = [(None, None)] + [(0, None)] * len(names)
    found = minimize(loss, np.zeros(1 + len(names)), jac=True, bounds=bounds, method="L-BFGS-B")
    per_unit = found.x[1:] / scale
    columns = zip(names, per_unit, low, high, strict=True)
    terms = {name: Term(*(round(float(v), 5) for v in values)) for name, *values in columns}
    bias = float(found.x[0]) - float(per_unit @ low)
    return TrustModel(round(bias, 5), terms, 1.0, 1.0, 0.0, {})


def _quantile(values: np.ndarray, weight: np.ndarray, share: float) -> np.ndarray:
    """Of each column of ``values [N, F]``, by ``weight [N]``."""
    columns = values.T
    return np.array(
        [np.quantile(column, share, weights=weight, method="inverted_cdf") for column in columns]
    )


def confidences(model: TrustModel, rows: Rows) -> np.ndarray:
    return np.array([model.confidence(n) for n in rows.numbers])


def left_out(rows: Rows, names: Sequence[str], l2: float = L2) -> np.ndarray:
    """The confidence of every row from a model fitted without its person, ``[N]``."""
    found = np.full(len(rows.right), np.nan)
    for person in np.unique(rows.person):
        own = rows.person == person
        rest = rows.part(~own & (rows.other != person))
        found[own] = confidences(fit(rest, names, l2), rows.part(own))
    return found


def limits(rows: Rows, confidence: np.ndarray) -> tuple[float, float]:
    """Confidences from which results are accepted, and doubtful: the smallest that leave the wanted
    shares of strangers, and no less than 0.5 and 0.1."""
    strangers = pair_confidence(rows, confidence)
    accepted = max(_above(strangers, WRONG_ACCEPTED), 0.5)
    return accepted, min(max(_above(strangers, WRONG_SHOWN), 0.1), accepted)


def _above(values: np.ndarray, share: float) -> float:
    """The smallest limit that at most this share of ``values [N]`` reaches, and a little more.
    Where they are too few to tell such a share, it is that of a normal distribution of log-odds."""
    odds = logit(np.sort(values).clip(1e-6, 1 - 1e-6))[::-1]
    allowed = int(share * len(odds))
    strongest = odds[allowed] if allowed else odds.mean() + norm.isf(share) * odds.std(ddof=1)
    return round(float(expit(strongest + AHEAD)), 3)


def hidden_mm(rows: Rows) -> float:
    """What has to be added to the raw error, in quadrature, to cover the true one in `COVERED` of
    right results (split conformal prediction; Vovk et al. 2005). Each person counts the same."""
    part = (rows.kind == OWN) & rows.right
    missing = np.sqrt((rows.tre_mm[part] ** 2 - rows.raw_error_mm[part] ** 2).clip(0))
    _, place, count = np.unique(rows.person[part], return_inverse=True, return_counts=True)
    order = np.argsort(missing)
    reached = (1 / count[place])[order].cumsum() / (len(count) + 1)  # one more, not yet seen
    wanted = min(int(np.searchsorted(reached, COVERED)), len(order) - 1)
    return round(float(missing[order][wanted]), 3)


def predicted_left_out(rows: Rows) -> np.ndarray:
    """The predicted error of every row, by what the other persons hide, ``[N]`` mm."""
    found = rows.raw_error_mm.copy()
    for person in np.unique(rows.person):
        own = rows.person == person
        found[own] = np.hypot(found[own], hidden_mm(rows.part(~own)))
    return found


def fitted(files: Sequence[Path]) -> tuple[TrustModel, str]:
    """The model with its limits, and the table of what was left out."""
    names = list(FEATURES)
    rows, lost = read_rows(files, names)
    confidence = left_out(rows, names)
    accepted, doubtful = limits(rows, confidence)
    text = table(rows, Judgement(confidence, accepted, doubtful, predicted_left_out(rows)))
    written = (json.loads(line) for file in files for line in file.read_text().splitlines())
    made_by = {
        "command": "python -m Testing.Studies.trust_fit",
        "encoder": sorted({row["weights"] for row in written}),
        "right": int(rows.right.sum()),
        "wrong": int((~rows.right).sum()),
        "people": len(np.unique(rows.person)),
    }
    model = replace(
        fit(rows, names),
        accepted_from=accepted,
        doubtful_from=doubtful,
        hidden_mm=hidden_mm(rows),
        made_by=made_by,
    )
    return model, text + _lost(lost)


def judged(files: Sequence[Path], model: TrustModel) -> str:
    """The table of pairs that are new to a model."""
    rows, lost = read_rows(files, list(model.terms))
    limits_ = (model.accepted_from, model.doubtful_from)
    said = Judgement(
        confidences(model, rows), *limits_, np.hypot(rows.raw_error_mm, model.hidden_mm)
    )
    return table(rows, said) + _lost(lost)


def _lost(count: int) -> str:
    return f"\n\npairs that belong together and led to no transform: {count}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pairs", type=Path, nargs="+", help="what trust_pairs wrote")
    parser.add_argument("--write", type=Path, help="where the model goes, .json")
    parser.add_argument("--judge", type=Path, help="a model to judge pairs by that are new to it")
    args = parser.parse_args()
    if args.judge is not None:
        print(judged(args.pairs, TrustModel.load(args.judge)))
        return
    model, text = fitted(args.pairs)
    print(text)
    written = json.dumps(asdict(model), indent=2) + "\n"
    print("\n" + written)
    if args.write is not None:
        args.write.write_text(written, encoding="utf-8")


if __name__ == "__main__":
    main()
