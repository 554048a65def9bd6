"""The page that teaches the derivation: every block is run, every output compared, the picture redrawn."""

import contextlib
import importlib.util
import io
import re
import sys
from pathlib import Path

import numpy as np

import softgrad
from softgrad.diagnosis import CATALOGUE

DOCS = Path(__file__).parents[1] / "docs"
PAGE = DOCS / "where-did-i-go-wrong.md"
BLOCK = re.compile(r"```python\n(.*?)```(?:\s*```text\n(.*?)```)?", re.DOTALL)


def run(page):
    """Every block of code with the output shown and the output it has."""
    namespace = {}
    for block in BLOCK.finditer(page):
        code, shown = block.groups()
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(code, PAGE.name, "exec"), namespace)
        yield block, shown, printed.getvalue()


def test_every_example_prints_what_the_page_shows():
    blocks = list(run(PAGE.read_text(encoding="utf-8")))
    assert len(blocks) > 10
    for block, shown, printed in blocks:
        assert printed == (shown or ""), block.group(0)


def test_the_table_is_the_catalogue():
    rows = re.findall(r"^\| `([\w-]+)` \| (.*) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert rows == [(mistake.id, mistake.title) for mistake in CATALOGUE.values()]


def test_the_picture_is_drawn_from_the_numbers():
    spec = importlib.util.spec_from_file_location("picture", DOCS / "picture.py")
    picture = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(picture)
    assert picture.FILE.read_text(encoding="utf-8") == picture.draw()
    _, _, product = picture.numbers()
    np.testing.assert_allclose(product, softgrad.softmax_jvp(picture.V, logits=picture.Z), rtol=1e-14)


if __name__ == "__main__":  # write the outputs and the table into the page: python -m tests.test_diagnose_page
    page = PAGE.read_text(encoding="utf-8")
    for block, shown, printed in run(page):
        if shown is not None and shown != printed:
            page = page.replace(
                block.group(0), block.group(0).replace(f"```text\n{shown}```", f"```text\n{printed}```")
            )
    head = page[: page.index("| --- | --- |\n")] + "| --- | --- |\n"
    page = head + "".join(f"| `{mistake.id}` | {mistake.title} |\n" for mistake in CATALOGUE.values())
    PAGE.write_text(page, encoding="utf-8")
    sys.exit(0)
