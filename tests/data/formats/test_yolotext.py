from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from frcnn.data.formats.yolotext import looks_like_labels, parse_data, parse_labels, parse_names, parse_yaml

BOX = "1 0.5 0.4 0.2 0.1"
POLYGON = "0 0.1 0.2 0.3 0.2 0.3 0.6"


@pytest.mark.parametrize(
    ("lines", "problems"),
    [
        ([], []),
        (["", " \t"], []),
        ([BOX, "", POLYGON], []),
        (["3 1.005 0.5 0.01 0.2", "3 -0.01 0.5 0.1 0.2"], []),  # as exporters round
        (
            [f"{BOX} 0.9", BOX],
            [(1, "D16", "has 6 columns, the last a confidence: this is a result file")],
        ),
        (
            ["1 0.5 0.5 0.2"],
            [(1, "D16", "has 4 columns; the row of a box has 5, of a polygon an odd number")],
        ),
        ([BOX, "0 .1 .2 .3 .4 .5 .6 .7"], [(2, "D16", "has 8 columns")]),
        (["cat 0.5 0.5 0.2 0.1"], [(1, "D16", "column 1 (class) is 'cat', not the number of a class")]),
        (["0.5 0.5 0.5 0.2 0.1"], [(1, "D16", "column 1 (class) is '0.5'")]),
        (["9" * 5000 + " 0.5 0.5 0.2 0.1"], [(1, "D16", "column 1 (class)")]),
        (["0 0.5 0,5 0.2 0.1"], [(1, "D16", "column 3 of class 0 is '0,5', not a number")]),
        (["0 0.5 nan 0.2 0.1"], [(1, "D16", "column 3 of class 0 is 'nan', not a number")]),
        (
            ["0 320 240 64 48"],
            [(1, "D04", "column 2 (centre x) of class 0 is 320, above 1: these look like")],
        ),
        (["0 0.5 0.5 1.21 0.2"], [(1, "D04", "column 4 (width) of class 0 is 1.21, above 1")]),
        (["0 0.5 -0.2 0.3 0.2"], [(1, "D04", "column 3 (centre y) of class 0 is -0.2, below 0")]),
        (["0 0.1 0.2 0.3 inf 0.3 0.6"], [(1, "D04", "column 5 of class 0 is inf, above 1")]),
    ],
)
def test_rows_that_cannot_be_read(lines: list[str], problems: list[tuple[int, str, str]]) -> None:
    found = parse_labels(lines).problems
    assert [(p.line, p.code) for p in found] == [(line, code) for line, code, _ in problems]
    for problem, (*_, reason) in zip(found, problems, strict=True):
        assert reason in problem.reason


def test_a_label_file() -> None:
    assert parse_labels([]).boxes.shape == (0, 4)
    found = parse_labels([BOX, "", POLYGON, "2.0 0.5 0.5 1 1"])
    assert found.ids.tolist() == [1, 0, 2] and found.lines.tolist() == [1, 3, 4]
    assert found.boxes.ravel() == pytest.approx([0.4, 0.35, 0.6, 0.45, 0.1, 0.2, 0.3, 0.6, 0, 0, 1, 1])
    assert found.polygons == 1


def test_key_points_follow_a_box_where_the_set_has_some() -> None:
    row = f"{BOX} 0.1 0.1 2 0.2 0.2 1"
    assert parse_labels([row], 6).boxes.ravel() == pytest.approx([0.4, 0.35, 0.6, 0.45])
    assert parse_labels([row], 6).polygons == 0
    assert "the row of a box has 11" in parse_labels([POLYGON], 6).problems[0].reason


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([], False),
        (["", ""], False),
        (["", BOX], True),
        ([POLYGON], True),
        (["0 320 240 64 48"], True),  # pixels are YOLO's with a fault
        (["a picture of a cat on a mat"], False),
        (["Car 0 0 0 1 2 3 4"], False),
        (["1 2 3"], False),
    ],
)
def test_what_looks_like_labels(lines: list[str], expected: bool) -> None:
    assert looks_like_labels(lines) is expected


def test_a_data_file() -> None:
    setup = parse_yaml(
        "path: ../x\ntrain: images/train\nval:\n  - a\n  - b\ntest:\nnc: 2\nnames:\n  0: cat\n"
        "  7: 'dog, red'\nkpt_shape: [17, 3]\nroboflow:\n  url: https://x\n"
    )
    assert setup.names == {0: "cat", 7: "dog, red"} and setup.base == "../x"
    assert setup.splits == {"train": [("images/train", 2)], "val": [("a", 4), ("b", 5)]}
    assert setup.keypoints == 51 and not setup.problems
    assert parse_yaml("valid: v\nnames: [a, 'b']").names == {0: "a", 1: "b"}
    assert parse_yaml("valid: v\nnames: []").splits == {"val": [("v", 1)]}


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("", 1, "has no keys"),
        ("- a\n- b", 1, "has no keys"),
        ("a: b\nc: [", 2, "is not YAML"),
        ("a: \x00", 1, "is not YAML"),
        ("[" * 5000, 1, "is not YAML"),
        ("train: x\nnames: cat", 2, "names is neither a list nor a mapping"),
        ("names:\n  0: a\n  0: b", 3, "the number 0 comes twice"),
        ("names:\n  cat: 0", 2, "'cat' has no usable number and name"),
        ("names:\n- [a]", 2, "'0' has no usable number and name"),
        ("names: [a]\nnc: 3", 1, "nc is 3 and names holds 1"),
        ("names: [a]\ntrain: {a: b}", 2, "train is neither a path nor a list of paths"),
        ("train: &a [*a]", 1, "train is neither a path nor a list of paths"),
    ],
)
def test_data_files_that_cannot_be_used(text: str, line: int, reason: str) -> None:
    problems = parse_yaml(text).problems
    assert any(p.line == line and reason in p.reason for p in problems), problems


def test_aliases_cost_nothing() -> None:
    levels = [
        f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
    ]
    bomb = "a: &a [x, x]\n" + "".join(levels)
    setup = parse_yaml(bomb + "names: *i\ntrain: *i\n")
    assert setup.names == {} and len(setup.problems) > 0
    assert max(len(p.reason) for p in setup.problems) < 200


def test_darknets_files() -> None:
    assert parse_data("").splits == {}
    setup = parse_data("classes = 2\n# c\ntrain=a.txt\n valid = b/c.txt \r\nnames = obj.names\nbackup =\n")
    assert setup.splits == {"train": [("a.txt", 3)], "val": [("b/c.txt", 4)]}
    assert setup.names_file == "obj.names" and not setup.problems
    assert [(p.line, p.reason) for p in parse_data("train = a\nnonsense").problems] == [
        (2, "is no line 'key = value': 'nonsense'")
    ]
    assert parse_names([]) == {}
    assert parse_names(["cat ", "", "dog", " ", ""]) == {0: "cat", 1: "", 2: "dog"}


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_nothing_in_a_file_makes_the_parsers_fail(data: st.DataObject) -> None:
    pieces = [
        "nan",
        "1e999",
        "-",
        ":",
        "names",
        "train",
        "[",
        "{",
        "&a",
        "*a",
        "9" * 5000,
        "\n",
        " 0.5",
        "\0",
        "- ",
    ]
    text = "".join(data.draw(st.lists(st.sampled_from(pieces) | st.text(max_size=6), max_size=25)))
    base = f"train: x\nnames: [a, b]\n{BOX}\n{POLYGON}\n"
    at = data.draw(st.integers(0, len(base)))
    text = base[:at] + text + base[at:]
    labels = parse_labels(text.split("\n"))
    assert len(labels.boxes) == len(labels.ids) == len(labels.lines)
    for setup in (parse_yaml(text), parse_data(text)):
        assert all(p.line >= 1 and p.reason for p in setup.problems)
