"""Mutation testing: what is changed, how it is named, and what the run makes of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mutants.__main__ import EQUAL, named, read_equal
from mutants.changes import mutants

ROOT = Path(__file__).parents[1]

SOURCE = '''
LIMIT = 5

class Box:
    """A box."""

    @property
    def size(self) -> "int":
        "Its size."
        if self.é and self.few < 3:  # ü
            return 1
        self.note()
        return 1

def spread(values: dict = None, most=2.5):
    for value in values:
        if value:
            continue
        raise ValueError("a text for people", most + 1)
    del values
    return None
'''


def changes_of(source: str) -> list[str]:
    return [f"{m.function}: {m.change}" for m in mutants("box", source)]


def test_each_change_is_named_by_its_function_and_what_it_does() -> None:
    assert changes_of(SOURCE) == [
        "Box.size: self.é and self.few < 3 → (self.é or self.few < 3)",
        "Box.size: self.few < 3 → (self.few <= 3)",
        "Box.size: 3 → (4)",
        "Box.size: 3 → (2)",
        "Box.size: return 1 → return None",
        "Box.size: 1 → (2)",
        "Box.size: 1 → (0)",
        "Box.size: self.note() → pass",
        "Box.size: return 1 → return None #2",
        "Box.size: 1 → (2) #2",
        "Box.size: 1 → (0) #2",
        "spread: 2.5 → (3.5)",
        "spread: 2.5 → (1.5)",
        "spread: value → (not (value))",
        "spread: continue → break",
        "spread: most + 1 → (most - 1)",
        "spread: 1 → (2)",
        "spread: 1 → (0)",
        "spread: del values → pass",
    ]


def test_a_name_outlives_edits_elsewhere() -> None:
    edited = "# A line.\n" + SOURCE.replace("LIMIT = 5", "LIMIT = 6\nMORE = 7 < 8")
    assert changes_of(edited) == changes_of(SOURCE)


def test_nothing_else_is_changed() -> None:
    (mutant,) = (m for m in mutants("box", SOURCE) if "<=" in m.change)
    assert mutant.source == SOURCE.replace("self.few < 3", "(self.few <= 3)")
    assert mutant.name == "box Box.size: self.few < 3 → (self.few <= 3)"
    lines = SOURCE.splitlines()
    assert lines[mutant.first - 1].strip() == "@property"
    assert lines[mutant.last - 1].strip() == "return 1"


def test_every_mutant_is_python() -> None:
    path = ROOT / "flask_sse_lite" / "history" / "cursor.py"
    for mutant in mutants("history.cursor", path.read_text("utf-8")):
        compile(mutant.source, mutant.name, "exec")


def test_a_reason_is_for_all_names_above_it() -> None:
    text = "# A remark.\n\na b: c\nd e: f\n    They are\n    the same.\n"
    text += "\ng h: i\n    So.\n"
    assert read_equal(text) == {
        "a b: c": "They are the same.",
        "d e: f": "They are the same.",
        "g h: i": "So.",
    }
    with pytest.raises(ValueError, match="no reason for"):
        read_equal(text + "j k: l\n")


def test_a_folders_name_means_its_modules() -> None:
    modules = ["event", "hub", "hub.loop", "hubs", "history.log"]
    assert named(["history", "hub"], modules) == ["history.log", "hub", "hub.loop"]
    assert named(["hub.loop", "hub"], modules) == ["hub.loop", "hub"]


def test_every_mutant_that_is_listed_exists() -> None:
    listed = read_equal(EQUAL.read_text("utf-8"))
    modules = {name.partition(" ")[0] for name in listed}
    found = {
        mutant.name
        for module in modules
        for mutant in mutants(
            module,
            (ROOT / "flask_sse_lite" / (module.replace(".", "/") + ".py")).read_text(
                "utf-8"
            ),
        )
    }
    assert set(listed) - found == set()


def test_the_checkout_stays_and_what_no_test_sees_is_named() -> None:
    module = ROOT / "flask_sse_lite" / "position.py"
    before = module.read_bytes()
    run = subprocess.run(
        [sys.executable, "-m", "mutants", "position", "--only", "is_position"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "killed" in run.stdout
    assert "survived" not in run.stdout
    assert module.read_bytes() == before
