"""Figures of a result file, as small SVG files that GitHub shows in the README."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench import tables
from bench.contenders.copy import LIMIT

COLOURS = {
    "numba": "#1f4fd8", "cupy": "#1f4fd8", "numpy": "#7aa7ff", "numba_cuda": "#7aa7ff", "torch": "#d9480f",
    "torch.compile": "#f59f00", "jax": "#862e9c", "sklearn": "#2b8a3e", "scipy": "#8d6e53", "cupyx": "#8d6e53",
    "liger": "#2b8a3e", "quack": "#c2255c", "naive": "#6b7280",
}  # fmt: skip
# The same file gives the same bytes; text stays text, which is small and can be searched.
STYLE = {
    "svg.hashsalt": "softgrad", "svg.fonttype": "none", "font.size": 11, "axes.spines.top": False,
    "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.25, "figure.facecolor": "white",
}  # fmt: skip


def speed_figure(content: dict[str, Any], path: Path, operations: tuple[str, ...], dtype: str = "float32") -> bool:
    """Throughput against C, a panel per operation, the copy as the limit; False where there is nothing to draw."""
    grouped = tables.by_case(tables.entries(content, "speed"))
    drawn = {
        operation: largest
        for operation in operations
        if len(largest := _largest_batches(grouped, operation, dtype)) > 1
    }
    if not drawn:
        return False
    with _figure(path, len(drawn), (4.6 * len(drawn), 4.4)) as (figure, axes):
        for ax, (operation, points) in zip(axes, drawn.items(), strict=True):
            classes = sorted(points)
            for name in tables.contender_names(content, _all(points)):
                own = [(c, points[c][name]["gb_per_s"]) for c in classes if name in points[c]]
                ours = any(name in points[c] and points[c][name]["ours"] for c in classes)
                ax.plot(
                    *zip(*own, strict=True), marker="o", markersize=5 if ours else 4, linewidth=2.4 if ours else 1.3,
                    color=COLOURS.get(name), label=f"softgrad {name}" if ours else name, zorder=3 if ours else 2,
                )  # fmt: skip
            limit = [(c, points[c][LIMIT]["gb_per_s"]) for c in classes if LIMIT in points[c]]
            if limit:
                ax.plot(*zip(*limit, strict=True), "k--", linewidth=1.8, label="limit: copy of the same bytes")
            ax.set_xscale("log")
            ax.set_yscale("log")
            ax.set_title(operation, fontsize=12)
            ax.set_xlabel("classes C")
        axes[0].set_ylabel("GB/s (each input and output once)")
        _legend_below(figure, axes)
    return True


def jacobian_figure(content: dict[str, Any], path: Path) -> bool:
    """Time and peak memory against C; False where there is nothing to draw."""
    found = tables.entries(content, "jacobian")
    if len({entry["classes"] for entry in found}) < 2:
        return False
    fits = tables.slopes(content)
    largest = max(entry["classes"] for entry in found)
    with _figure(path, 2, (9.6, 4.4)) as (_, axes):
        panels = (("time", "median", "seconds per call"), ("memory", "peak_bytes", "peak bytes"))
        for ax, (what, key, label) in zip(axes, panels, strict=True):
            for name in tables.contender_names(content, found):
                own = [(e["classes"], e[key]) for e in found if e["contender"] == name and e.get(key)]
                if not own:
                    continue
                ours = name in {e["contender"] for e in found if e["ours"]}
                said = f"softgrad {name}" if ours else "full Jacobian (naive)"
                power = tables.power_text(fits[name][what])
                ax.plot(
                    *zip(*own, strict=True), marker="o", markersize=4, linewidth=2.0, color=COLOURS.get(name),
                    label=f"{said} {power}".rstrip(),
                )  # fmt: skip
                if own[-1][0] < largest:
                    ax.annotate(
                        "no longer fits",
                        own[-1],
                        xytext=(6, 4),
                        textcoords="offset points",
                        fontsize=9,
                        color="#444444",
                    )
            ax.set_xscale("log", base=2)
            ax.set_yscale("log")
            ax.set_xlabel("classes C")
            ax.set_ylabel(label)
            ax.legend(frameon=False, fontsize=9)
    return True


@contextmanager
def _figure(path: Path, columns: int, size: tuple[float, float]) -> Iterator[tuple[Any, Any]]:
    """A figure with one row of axes, saved on leaving."""
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with mpl.rc_context(STYLE):
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasSVG(figure)
        yield figure, figure.subplots(1, columns, squeeze=False)[0]
        figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})


def _largest_batches(grouped: Any, operation: str, dtype: str) -> dict[int, dict[str, Any]]:
    """At each C the case that moves most bytes."""
    largest: dict[int, Any] = {}
    for case in grouped:
        if (case.operation, case.dtype) == (operation, dtype) and (
            case.classes not in largest or case.bytes > largest[case.classes].bytes
        ):
            largest[case.classes] = case
    return {classes: grouped[case] for classes, case in largest.items()}


def _all(points: Any) -> list[Any]:
    return [entry for case in points.values() for entry in case.values()]


def _legend_below(figure: Any, axes: Any) -> None:
    """One legend for all panels."""
    handles: dict[str, Any] = {}
    for ax in axes:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=5, frameon=False, fontsize=10)
