"""The README's tour prints what the README says."""

import doctest
import re
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"


def test_the_tour_is_eight_lines_and_prints_what_it_says():
    text = README.read_text()
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    tour = doctest.DocTestParser().get_doctest("\n".join(_blocks(text, "pycon")), {}, "README", "README.md", 0)
    assert len(tour.examples) <= 8
    failures, attempted = doctest.DocTestRunner(optionflags=flags).run(tour)
    assert (failures, attempted) == (0, len(tour.examples))


def _blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.S)


@pytest.mark.parametrize("line", ["pip install uv && uv run hbm-zoo compare hospital_readmission", "uv run pytest"])
def test_the_two_commands_stand_in_the_readme(line):
    assert line in _blocks(README.read_text(), "sh")[0]
