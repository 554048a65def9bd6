"""Where did I go wrong?  A hand-written softmax derivative, diagnosed.

`question` is what was asked and its true answer; `recipe` the textbook computation with a switch at every step at
which people go wrong; `mistakes_of_*` the catalogue, each mistake a change of switches; `precision` and `matching`
decide whether numbers are right, and which smallest set of mistakes gives them; `calling` and `probing` deal with
functions, `report` with words; `front` puts them together.
"""

from softgrad.diagnosis.catalogue import CATALOGUE
from softgrad.diagnosis.front import diagnose
from softgrad.diagnosis.report import Diagnosis, Entry, Explanation

__all__ = ["CATALOGUE", "Diagnosis", "Entry", "Explanation", "diagnose"]
