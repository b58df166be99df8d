"""The speed table: its arithmetic, and that every group runs and names its bars."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ent_bc import speed
from ent_bc.cli import main
from ent_bc.speed import quickstart
from ent_bc.speed.history import code_at
from ent_bc.speed.rows import Row, in_turn, rate


def row(ours: tuple[float, ...], theirs: tuple[float, ...], **bar: float) -> Row:
    return Row("ours", "theirs", "1/s", ours, theirs, **bar)


def test_the_ratio_is_the_median_of_pairs() -> None:
    # The machine slowed down for the last one: both sides did.
    assert row((10, 12, 3), (5, 4, 1)).ratio == 3
    assert row((10, 12, 3), (5, 4, 1)).ratios == [2, 3, 3]


def test_a_bar_is_met_or_not() -> None:
    assert row((2.0,), (1.0,), at_least=2).is_met is True
    assert row((2.0,), (1.0,), at_least=2.1).is_met is False
    assert row((2.0,), (1.0,), at_most=1.9).is_met is False
    assert row((2.0,), (1.0,), at_most=2).is_met is True
    assert row((2.0,), (1.0,)).is_met is None


@pytest.mark.parametrize(("ours", "theirs"), [((), ()), ((1.0,), (1.0, 2.0))])
def test_figures_come_in_pairs(ours: tuple[float, ...], theirs: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="expected equally many"):
        row(ours, theirs)


def test_sides_take_turns_after_one_to_warm_up() -> None:
    order: list[str] = []

    def side(name: str) -> float:
        order.append(name)
        return len(order)

    figures = in_turn(2, lambda: side("a"), lambda: side("b"))
    assert order == ["a", "b"] * 3
    assert figures == [(3, 5), (4, 6)]


def test_a_rate_is_work_by_time() -> None:
    done: list[int] = []
    assert rate(lambda: done.append(1), 1000.0)() > 1000
    assert done == [1]


@pytest.mark.parametrize("group", [name for name in speed.GROUPS if name != "quickstart"])
def test_every_group_measures_rows(group: str) -> None:
    rows = list(speed.measure([group], quick=True))
    assert rows
    assert any(row.is_met is not None for row in rows)
    assert all(figure > 0 for row in rows for figure in (*row.ours, *row.theirs))


def test_the_quickstart_is_run_with_the_code_of_both_versions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    then = tmp_path / "ent_bc"
    then.mkdir()
    then.joinpath("cli.py").write_text(
        "import json, pathlib, sys\n"
        "def main():\n"
        "    assert sys.argv[1:3] == ['quickstart', '--out'] and '--n-tasks' in sys.argv\n"
        "    report = pathlib.Path(sys.argv[3], 'report')\n"
        "    report.mkdir(parents=True)\n"
        "    record = {'conditions': {'own_1shot': {'shown': {'value': 0.75}}}}\n"
        "    report.joinpath('results.json').write_text(json.dumps(record))\n"
    )

    @contextmanager
    def first(commit: str, *paths: str) -> Iterator[Path]:
        assert (commit, paths) == (quickstart.FIRST_VERSION, ("ent_bc", "meta_pusher_env"))
        yield tmp_path

    monkeypatch.setattr(quickstart, "code_at", first)
    seconds, failed = quickstart.measure(quick=True)
    assert seconds.at_most == 0.5 and seconds.ratio > 2  # ours does something
    assert failed.theirs == (25.0,) and 0 < failed.ours[0] <= 100

    then.joinpath("cli.py").write_text("def main(): raise ValueError('no such task')")
    with pytest.raises(RuntimeError, match=r"(?s)failed:.*no such task"):
        quickstart._run(tmp_path, ())


def test_a_version_that_git_does_not_have_is_left_out() -> None:
    with pytest.warns(UserWarning, match="0000000 is left out, for git does not have it"):
        with code_at("0" * 40, "ent_bc") as code:
            assert code is None


def test_an_unknown_group_is_named() -> None:
    with pytest.raises(ValueError, match=r"Unknown groups \['luck'\]"):
        list(speed.measure(["luck"]))


def test_the_command_prints_a_table_and_writes_every_figure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = [row((3.0, 4.0), (1.0, 1.0), at_least=2), row((1.0,), (2.0,), at_most=0.4)]
    monkeypatch.setattr(speed, "measure", lambda groups, *, quick: iter(found))
    monkeypatch.setattr("sys.argv", ["ent-bc", "benchmark", "speed", "--out", str(tmp_path)])
    main()
    assert "3.5" in capsys.readouterr().out
    first, second = json.loads((tmp_path / "speed.json").read_text())
    assert first["ratio"] == 3.5 and first["is_met"] and first["ours"] == [3.0, 4.0]
    assert second["ratio"] == 0.5 and not second["is_met"]
