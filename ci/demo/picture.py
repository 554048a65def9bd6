"""The demonstration's picture: the fits converging, and the cost of the full Jacobian."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
from fit import Fits
from jacobian import ROWS, Cost

mpl.use("Agg")
from matplotlib import pyplot as plt

FULL, FUSED = "#c44e52", "#2a6f97"


def draw(path: Path, fits: Fits, costs: list[Cost]) -> None:
    """Write the picture to `path`."""
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(14, 4.2), layout="constrained")
    for fit, style in zip(fits.fits, ("-", "--", ":"), strict=True):
        left.semilogy([max(f - fits.reference.objective, 1e-16) for f in fit.history], style, label=fit.name)
    left.set(title="Digits: distance to scikit-learn's optimum", xlabel="iteration", ylabel="objective − optimum")
    left.legend(fontsize=8)
    classes = [cost.classes for cost in costs]
    for axes, label, values in (
        (middle, "milliseconds", [[1e3 * s for s in cost.seconds] for cost in costs]),
        (right, "peak MiB", [[b / 2**20 for b in cost.peak] for cost in costs]),
    ):
        for way, (name, colour) in enumerate((("full Jacobian, O(C²)", FULL), ("softgrad, O(C)", FUSED))):
            axes.loglog(classes, [value[way] for value in values], "o-", color=colour, label=name)
        axes.set(title=f"One gradient of {ROWS} rows", xlabel="classes C", ylabel=label)
        axes.legend(fontsize=8)
    for axes in (left, middle, right):
        axes.grid(alpha=0.3)
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=120)
    plt.close(figure)
