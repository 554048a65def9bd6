"""The report: tables, figures and sections say what the results say."""

from __future__ import annotations

import pytest

from bench import compare, figures, report, results, tables
from bench.cases import Case


def entry(kind: str, case: Case, contender: str, median: float, **extra) -> dict:
    ours = contender == "numba"
    info = {
        "kind": kind, "operation": case.operation, "dtype": case.dtype, "rows": case.rows, "classes": case.classes,
        "contender": contender, "ours": ours, "bytes": case.bytes, "caches": "cold",
        "gb_per_s": case.bytes / median / 1e9, **extra,
    }  # fmt: skip
    stats = {"median": median, "iqr": 0.1 * median}
    return {"group": f"{kind} {case.name}", "fullname": f"{case.name}-{contender}", "extra_info": info, "stats": stats}


def content(slowness: float = 1.0) -> dict:
    """A result file: softmax at two C, the full Jacobian at six, accuracy of two contenders."""
    benchmarks = []
    for classes in (10, 1000):
        case = Case("softmax", "float32", 1000, classes)
        benchmarks += [
            entry("speed", case, "copy", 1e-3),
            entry("speed", case, "numba", 2e-3 * slowness, percent_of_copy=50.0 / slowness),
            entry("speed", case, "torch", 5e-3),
        ]
    for classes in (64, 128, 256, 512, 1024, 2048):
        case = Case("cross_entropy_value_and_grad", "float32", 16, classes)
        benchmarks.append(entry("jacobian", case, "numba", 1e-9 * classes, peak_bytes=64 * classes))
        if classes < 2048:
            benchmarks.append(entry("jacobian", case, "naive", 1e-8 * classes**2, peak_bytes=128 * classes**2))
    errors = (("numba", True, 1.5), ("torch", False, 2.0**23))
    accuracy = [
        {"operation": "softmax", "dtype": "float32", "contender": name, "ours": ours, "worst_ulp": ulp}
        for name, ours, ulp in errors
    ]
    about = {
        "schema": 1, "device_name": "A machine", "complete": True, "filtered": False, "cuda": None,
        "load_at_start": 0.1,
        "settings": {"device": "cpu", "quick": False, "threads": 2},
        "last_level_cache": 32 << 20, "versions": {"python": "3.11"},
        "absent": {"jax (cpu)": "not there"},
        "contenders": {"numba": {}, "torch": {"softmax": "eager"}, "naive": {}}, "refused": [], "accuracy": accuracy,
        "stopped": {"naive": "C = 2,048 needs more"},
    }  # fmt: skip
    return {"datetime": "2026-01-01T00:00:00", "benchmarks": benchmarks, "softgrad": about}


def test_speed_table_gives_percent_of_the_copy_and_ratios():
    (table,) = tables.speed_tables(content())
    assert list(table.header) == ["B × C", "MB", "copy", "numba", "torch", "spread"]
    assert table.rows[1] == ["1,000 × 1,000", "8.0", "1.00 ms, 8 GB/s", "**2.00 ms, 50 %**", "5.00 ms (2.5×)", "±5 %"]
    assert "| 1,000 × 1,000 | 8.0 | 1.00 ms, 8 GB/s |" in table.markdown()


@pytest.mark.parametrize(("ratio", "text"), [(0.456, "0.46×"), (2.54, "2.5×"), (12.3, "12×"), (1234.0, "1,234×")])
def test_ratios_are_written_out(ratio, text):
    assert tables.ratio_text(ratio) == text


def test_jacobian_table_gives_slopes_and_says_what_does_not_fit():
    table = tables.jacobian_table(content())
    assert table.rows[-2][-2:] == ["does not fit", ""]
    assert tables.slopes(content())["naive"]["time"] == pytest.approx(2.0)


def test_accuracy_table_says_where_no_digit_is_right():
    assert tables.accuracy_table(content()).rows == [["`softmax`, float32", "1.5", "8.4e6: no digit"]]


def test_absent_peers_are_in_the_report():
    assert "| jax (cpu) | not there |" in report.full_report([("a.json", content())])


def test_a_section_keeps_what_stands_around_it_and_notices_a_changed_digit():
    markers = "".join(f"<!-- bench:{name} -->\nstale text\n<!-- /bench:{name} -->\nafter\n" for name in report.SECTIONS)
    runs = [("a.json", content())]
    made = report.regenerate(f"before\n{markers}", runs)
    assert made.startswith("before\n<!-- bench:speed -->\n")
    assert made.count("after\n") == 3
    assert "stale text" not in made
    assert report.cited(made) == ["a.json"]
    assert report.regenerate(made, runs) == made
    assert report.regenerate(made.replace("2.00 ms", "1.00 ms"), runs) == made
    with pytest.raises(ValueError, match="bench:accuracy"):
        report.regenerate(made.replace("<!-- bench:accuracy -->", ""), runs)


def test_figures_draw_every_contender_and_the_limit(tmp_path):
    for draw, words in (
        (lambda at: figures.speed_figure(content(), at, ("softmax",)), ("softgrad numba", "torch", "limit: copy")),
        (lambda at: figures.jacobian_figure(content(), at), ("softgrad numba", "full Jacobian", "no longer fits")),
    ):
        assert draw(tmp_path / "a.svg")
        first = (tmp_path / "a.svg").read_bytes()
        assert all(word in first.decode() for word in words)
        assert draw(tmp_path / "a.svg")
        assert (tmp_path / "a.svg").read_bytes() == first  # the same results, the same file
    assert not figures.speed_figure(content(), tmp_path / "b.svg", ("logsumexp",))


def test_comparison_shows_ratios_of_what_both_have(tmp_path):
    now, before = content(), content(slowness=3.0)
    before["benchmarks"] = before["benchmarks"][3:]  # one case fewer
    table = compare.comparison(now, before)
    assert [row[0] for row in table.rows if row[0].startswith("speed")] == ["speed softmax-float32-1000x1000"]
    assert table.rows[0][1:] == ["numba", "6.00 ms", "2.00 ms", "3.00×", "17 %", "50 %"]
    with pytest.raises(ValueError, match="no measurement in common"):
        compare.comparison(now, content() | {"benchmarks": []})


def test_an_earlier_result_is_one_of_the_same_machine(tmp_path):
    other = content()
    other["softgrad"]["device_name"] = "Another machine"
    names = ["2026-01-01-a.json", "2026-01-02-b.json", "2026-01-03-a.json"]
    for name, one in zip(names, (content(), other, content()), strict=True):
        results.save(tmp_path / name, one)
    paths = results.stored(tmp_path, complete=True)
    assert [path.name for path in paths] == names
    assert compare.earlier_than(paths[2], paths) == paths[0]
    with pytest.raises(ValueError, match="no earlier result of Another machine"):
        compare.earlier_than(paths[1], paths)


def test_only_whole_runs_are_reported(tmp_path):
    for kind in ("", *results.UNCOMMITTED):
        results.save(tmp_path / f"2026-01-01-a{kind}.json", content())
    assert [path.name for path in report.latest(tmp_path)] == ["2026-01-01-a.json"]


def test_the_readme_shows_the_newest_run_of_each_device():
    on_gpu = content()
    on_gpu["softgrad"] = on_gpu["softgrad"] | {"settings": on_gpu["softgrad"]["settings"] | {"device": "gpu"}}
    runs = [("2026-01-02-b.json", content()), ("2026-01-01-c.json", on_gpu), ("2026-01-01-a.json", content())]
    assert [name for name, _ in report.shown(runs)] == ["2026-01-02-b.json", "2026-01-01-c.json"]


def test_a_file_is_written_whole_with_few_digits(tmp_path):
    results.save(tmp_path / "a.json", content() | {"x": 1 / 3, "y": float("inf"), "z": float("nan")})
    loaded = results.load(tmp_path / "a.json")
    assert (loaded["x"], loaded["y"], loaded["z"]) == (0.33333, "inf", "nan")
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
