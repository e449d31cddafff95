from __future__ import annotations

from pathlib import Path

import pytest
from voc_files import devkit

from frcnn.config import Config, DataConfig
from frcnn.data.check import load_checked
from frcnn.data.naming import class_list, new_names, rename_findings, shown_names, sources, unknown_classes
from frcnn.data.open import open_dataset, read_dataset
from frcnn.data.sample import DataError

PICTURES = {
    "a": [("adult", 1, 1, 9, 9), ("child", 2, 2, 8, 8)],
    "b": [("dog", 1, 1, 9, 9), ("adult", 4, 4, 4, 4)],
}


@pytest.mark.parametrize(
    ("rename", "expected"),
    [
        ({}, ["a", "b"]),
        ({"a": "x"}, ["x", "b"]),
        ({"*": "x"}, ["x", "x"]),
        ({"*": "x", "b": "b"}, ["x", "b"]),
        ({"a": " b "}, ["b", "b"]),
        ({"a": "b", "b": "a"}, ["b", "a"]),  # at once, not one after the other
        ({"c": "x"}, ["a", "b"]),
    ],
)
def test_new_names(rename: dict[str, str], expected: list[str]) -> None:
    assert new_names([], rename) == {}
    assert list(new_names(["b", "a"], rename).values()) == expected


def test_an_empty_new_name_is_refused() -> None:
    with pytest.raises(DataError, match=r'data\.rename: "cat" has the new name \' \''):
        new_names([], {"cat": " "})


def test_renaming_what_is_not_there_is_said() -> None:
    assert rename_findings([], {}) == []
    assert rename_findings(["adult"], {"*": "x", "adult": "y"}) == []
    found = rename_findings(["adult", "dog"], {"adlut": "x"})
    assert [(f.code, f.severity) for f in found] == [("D07", "error")]
    assert rename_findings(["adult"], {"adlut": "x"}, "warn")[0].severity == "warn"
    assert found[0].message == 'data.rename: no class "adlut" in the annotations; did you mean "adult"?'


def test_class_list() -> None:
    assert class_list("cat") == ("cat",)
    assert class_list(["cat ", "dog"]) == ("cat", "dog")
    with pytest.raises(DataError, match="names 'cat' twice"):
        class_list(["cat", "cat "])


def test_findings_name_the_class_as_written() -> None:
    assert unknown_classes([], [], {}) == []
    renamed = {"adult": "person", "dog": "dog"}
    found = unknown_classes([("adult", "a.xml", 3), ("dog", "a.xml", 9)], ["persons", "dog"], renamed)
    assert [str(f) for f in found] == [
        'a.xml:3: class "adult" (renamed to "person") is not in the class list; did you mean "persons"?',
        'class "persons" is in the class list and not in the annotations; did you mean "person"?',
    ]


def test_classes_are_renamed_while_reading(tmp_path: Path) -> None:
    devkit(tmp_path, PICTURES)
    plain = open_dataset(tmp_path)
    assert plain.classes == ("adult", "child", "dog") == tuple(shown_names(plain))
    data = open_dataset(tmp_path, config=DataConfig(rename={"adult": "person", "child": "person"}))
    assert (data.classes, data.class_counts().tolist()) == (("dog", "person"), [1, 3])
    assert sources(data) == [[], ["adult", "child"]]
    assert shown_names(data) == ["dog", "person (adult, child)"]
    assert shown_names(data.subset([1])) == ["dog", "person (adult)"]
    one = open_dataset(tmp_path, config=DataConfig(rename={"*": "thing"}))
    assert (one.classes, one.class_counts().tolist()) == (("thing",), [4])
    listed = read_dataset(tmp_path, ["person", "dog"], DataConfig(rename={"adult": "person"}))[1]
    assert [f.message for f in listed] == ['class "child" is not in the class list']


def test_the_check_names_a_box_as_written(tmp_path: Path) -> None:
    devkit(tmp_path, PICTURES)
    config = Config(data=DataConfig(rename={"*": "thing"}))
    report = load_checked(tmp_path, config=config, clean=False)[1]
    assert [f.message for f in report.with_code("D01")] == ['box (4, 4, 4, 4) of "adult" has no area']
