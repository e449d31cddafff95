from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from frcnn.data.formats.csvtext import find_header, parse

TABLE = "filename,class,xmin,ymin,xmax,ymax\n"


@pytest.mark.parametrize(
    ("text", "box"),
    [
        ("", None),
        ("\n\n", None),
        ("a,b,c\n1,2,3\n", None),
        (TABLE, ("x1", "y1", "x2", "y2")),
        ("\nImage Path;Label;X_Min;Y-Min;X_Max;Y_Max", ("x1", "y1", "x2", "y2")),
        ("file\tclass_name\tleft\ttop\tright\tbottom", ("x1", "y1", "x2", "y2")),
        ("image_id,label,x,y,width,height", ("x", "y", "w", "h")),
        ("path,category_id,x1,y1,w,h", ("x1", "y1", "w", "h")),
        ("img,label,x_center,y_center,width,height", ("cx", "cy", "w", "h")),
        ("path,xmin,ymin,xmax,ymax", None),  # no class
        ("class,xmin,ymin,xmax,ymax", None),  # no picture
        ("path,class,x,y", None),  # points
        ("file,label,name,score,x1,y1,x2,y2", None),  # results
        ("a/b.JPG,1,2,3,4,cat\n", ("x1", "y1", "x2", "y2")),
        ("a.jpg,,,,,\n", ("x1", "y1", "x2", "y2")),
        ("a.jpg,1,2,x,4,cat\n", None),
        ("a.txt,1,2,3,4,cat\n", None),
    ],
)
def test_what_the_columns_mean(text: str, box: tuple[str, ...] | None) -> None:
    header = find_header(text)
    assert (header.box if header else None) == box


def test_a_table() -> None:
    assert parse("").problems[0].reason == "has no columns for path, box and class"
    table = parse(
        "filename,width,height,class,xmin,ymin,xmax,ymax,Is_Crowd,difficult,truncated,occluded,split\n"
        "a.jpg,80,60,cat,1,2.5,30,40,0,1,0.25,2,train\n"
        '"b, c.jpg",80,60,,,,,,,,,,val\n'
        "\n"
        "a.jpg,80,60,dog,1,2,3,4,1,0,-1,-1,train\n"
    )
    assert table.pictures == ["a.jpg", "b, c.jpg"] and table.sizes == [(60, 80), (60, 80)]
    assert table.first_lines == [2, 3] and table.splits == ["train", "val"]
    assert table.names == ["cat", "dog"] and table.image.tolist() == [0, 0]
    assert table.boxes.tolist() == [[1, 2.5, 30, 40], [1, 2, 3, 4]] and table.lines.tolist() == [2, 5]
    flags = table.flags
    assert (flags.flagged.tolist(), flags.crowd.tolist()) == ([True, True], [False, True])
    assert (flags.truncated.tolist(), flags.occluded.tolist()) == ([0.25, 0], [2, 0])
    assert not table.problems and not table.relative


@pytest.mark.parametrize(
    ("columns", "row", "box"),
    [
        ("xmin,ymin,xmax,ymax", "1,2,30,40", [1, 2, 30, 40]),
        ("x,y,width,height", "1,2,30,40", [1, 2, 31, 42]),
        ("left,top,w,h", "1,2,30,40", [1, 2, 31, 42]),
        ("cx,cy,w,h", "10,20,4,6", [8, 17, 12, 23]),
    ],
)
def test_the_forms_of_a_box(columns: str, row: str, box: list[float]) -> None:
    assert parse(f"path,class,{columns}\na.jpg,cat,{row}\n").boxes.tolist() == [box]


def test_numbers_of_classes() -> None:
    table = parse(f"class_id,{TABLE}7,a.jpg,cat,1,2,3,4\n,a.jpg,cat,1,2,3,5\n9,a.jpg,dog,1,2,3,4\n")
    assert table.numbers == {"cat": ["7"], "dog": ["9"]}
    assert parse("path,class_id,x1,y1,x2,y2\na.jpg,7,1,2,3,4\n").names == ["7"]
    own = parse("file,label,name,x1,y1,x2,y2\na.jpg,3,cat,1,2,3,4\n")  # as our own predictions without scores
    assert (own.names, own.numbers) == (["cat"], {"cat": ["3"]})


def test_shares_of_the_picture() -> None:
    assert parse(f"{TABLE}a,cat,0.1,0,0.5,1\n").relative
    assert parse(f"{TABLE}a,cat,0.1,-0.002,0.5,1.004\n").relative  # rounded
    assert not parse(f"{TABLE}a,cat,0,0,1,1\n").relative  # one pixel
    assert not parse(f"{TABLE}a,cat,0.1,0,0.5,1\nb,cat,0.5,0,2,2\n").relative
    assert not parse(f"{TABLE}a,cat,0,0,1,1\nb,cat,0,0,1,1\nc,cat,2,2,9.5,9\n").relative
    assert not parse(TABLE).relative


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("c.jpg,cat,0.5,0,1.2,1", "box (0.5, 0, 1.2, 1) of 'cat' is not within 0 to 1, as most boxes here "
         "are"),
        ("c.jpg,dog,50,10,120,80", "box (50, 10, 120, 80) of 'dog' is not within 0 to 1, as most boxes here "
         "are: it looks like pixels"),
        ("c.jpg,cat,-4,0,0.5,1", "box (-4, 0, 0.5, 1) of 'cat' is not within 0 to 1, as most boxes here are"),
    ],
)  # fmt: skip
def test_a_box_that_is_no_share_among_shares(row: str, reason: str) -> None:
    table = parse(f"{TABLE}a.jpg,cat,0.1,0,0.5,1\nb.jpg,cat,0,0,1,1\n{row}\n")
    assert not table.relative and len(table.boxes) == 3  # one fraction against one that is none
    table = parse(f"{TABLE}a.jpg,cat,0.1,0,0.5,1\nb.jpg,cat,0.3,0.1,0.5,0.9\n{row}\n")
    assert table.relative and table.names == ["cat", "cat"] and table.pictures == ["a.jpg", "b.jpg", "c.jpg"]
    assert [(p.line, p.reason, p.code) for p in table.problems] == [(4, reason, "D04")]
    assert len(table.boxes) == len(table.lines) == len(table.image) == len(table.flags.flagged) == 2


def test_a_number_without_an_end_among_shares_is_for_the_check() -> None:
    table = parse(f"{TABLE}a,cat,0.1,0,0.5,1\na,cat,0.1,0,1e999,1\n")
    assert table.relative and not table.problems and table.boxes[1, 2] == float("inf")


def test_rows_that_contradict_others() -> None:
    head = "path,class,xmin,ymin,xmax,ymax,width,height,split\n"
    box = "cat,1,2,30,40"
    rows = [f"a.jpg,{box},80,60,train", f"a.jpg,{box},160,120,val", f"a.jpg,{box},80,60,test"]
    table = parse(
        head + "\n".join([*rows, f"b.jpg,{box},,,", f"b.jpg,{box},80,60,Valid", f"b.jpg,{box},0,0,val"])
    )
    assert table.sizes == [(60, 80), (60, 80)] and table.splits == ["train", "val"]
    assert len(table.boxes) == 6 and not table.problems
    assert [(p.line, p.code, p.reason) for p in table.contradictions.values()] == [
        (3, "D14", 'states 160 x 120 for "a.jpg", and 80 x 60 in a row before'),
        (3, "D18", 'has "a.jpg" in val, and in train in a row before'),
    ]


def test_without_names_of_columns() -> None:
    table = parse("a.jpg,1,2,3,4,cat\nb.jpg,,,,,\n")
    assert table.pictures == ["a.jpg", "b.jpg"] and table.names == ["cat"]
    assert table.lines.tolist() == [1]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("a.jpg,cat,1,2,3", "has 5 columns; at least 6 are needed"),
        (",cat,1,2,3,4", "names no picture"),
        ("a.jpg,,1,2,3,4", 'box without a class: ""'),
        ("a.jpg,cat,,,,", "box of 'cat' is empty"),
        ("a.jpg,cat,1,,3,4", "y1 of 'cat' is '', not a number"),
        ("a.jpg,cat,1,2,x,4", "x2 of 'cat' is 'x', not a number"),
        ("a.jpg,cat,1,2,nan,4", "x2 of 'cat' is 'nan', not a number"),
    ],
)
def test_rows_that_cannot_be_read(row: str, reason: str) -> None:
    problems = parse(f"{TABLE}\n{row}\n").problems
    assert [(p.line, p.reason) for p in problems] == [(3, reason)]


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_nothing_in_a_file_makes_the_parser_fail(data: st.DataObject) -> None:
    content = list(f"{TABLE}a.jpg,cat,1,2,3,4\nb.jpg,,,,,\nc.jpg,dog,1.5,2,3e1,4\n")
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        stop = at + data.draw(st.integers(0, 12))
        odd = st.sampled_from([",", '"', "\n", "\r", "1e999", "-inf", "\0", "9" * 5000, '"' + "x" * 200_000])
        content[at:stop] = data.draw(st.text(max_size=6) | odd)
        content = content or [" "]
    table = parse("".join(content))
    assert len(table.names) == len(table.boxes) == len(table.lines) == len(table.image)
    assert len(table.pictures) == len(table.sizes) == len(table.splits) == len(table.first_lines)
    assert all(p.line >= 1 and p.reason for p in table.problems)
