"""What is committed: the README's generated sections, RESULTS.md and figures are those of the committed results."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from bench import report, results

IN_GIT = shutil.which("git") is not None and (report.ROOT / ".git").exists()
README = report.README.read_text(encoding="utf-8")
RESULTS = report.RESULTS.read_text(encoding="utf-8")


def runs_named(names: list[str]) -> list:
    return report.read([results.FOLDER / name for name in names])


def test_readme_sections_are_made_from_the_results_they_cite():
    assert report.regenerate(README, runs_named(report.cited(README))) == README, "run `python3 ci bench --report`"


def test_results_md_is_made_from_the_results_it_names():
    assert report.full_report(runs_named(report.named(RESULTS))) == RESULTS, "run `python3 ci bench --report`"


def test_the_readme_shows_the_newest_of_each_device():
    shown = [name for name, _ in report.shown(runs_named(report.named(RESULTS)))]
    assert report.cited(README) == shown, "run `python3 ci bench --report`"


def test_figures_that_the_readme_shows_are_there():
    shown = re.findall(r"!\[[^]]*\]\((bench/results/[^)]+)\)", README)
    assert bool(shown) == bool(report.cited(README))
    assert all((report.ROOT / path).is_file() for path in shown)


@pytest.mark.skipif(not IN_GIT, reason="not a git checkout: nothing is committed")
def test_results_md_names_the_newest_committed_results():
    listed = subprocess.run(
        ["git", "ls-files", "bench/results"], cwd=report.ROOT, capture_output=True, text=True, check=True
    )
    committed = {Path(name).name for name in listed.stdout.split()}
    newest: dict = {}
    for path in results.stored(complete=True):
        if path.name in committed:
            about = results.load(path)["softgrad"]
            newest[about["settings"]["device"], about["device_name"]] = path.name
    assert set(report.named(RESULTS)) == set(newest.values()), "run `python3 ci bench --report`"


def test_committed_results_are_whole_and_small():
    paths = [results.FOLDER / name for name in report.named(RESULTS)]
    for path in paths:
        about = results.load(path)["softgrad"]
        assert about["complete"]
        assert not about["settings"]["quick"]
        assert not about["filtered"]
    assert sum(path.stat().st_size for path in paths) < 1 << 20
