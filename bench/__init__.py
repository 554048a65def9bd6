"""The benchmark: every case is checked against the truth, then timed side by side with the peers.

    python -m bench --quick        check and time a selection, in minutes
    python -m bench                everything, into one result file per machine and date
    python -m bench --report       tables, figures and the README's sections, from the committed result files

One run goes: `run` (which cases, which contenders) → `suites/` (pytest-benchmark tests, one per case and contender)
→ `check` (against tests/truth.py; a wrong contender is refused a timing) → `race` (interleaved samples) → `results`
(pytest-benchmark's JSON, saved after every case) → `report` (`tables`, `figures`).
"""
