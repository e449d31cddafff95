"""Which picture an annotation file belongs to, and which one a stated path means: the same for every format.

Nothing here opens a file: a stated path is only compared with the pictures of the data set's folder, so that
none can lead out of it. Names are compared first, because folders differ between layouts and machines; but a
picture of the right name is not taken from a folder that is known to be another one, since numbers such as
``00001.jpg`` begin anew in every folder.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

from frcnn.data.findings import Finding
from frcnn.data.formats.assemble import Record
from frcnn.data.formats.layout import SPLIT_NAMES, base_name, split_in_folders, split_in_name, stem

_YEAR = re.compile(r"[_-]?\d{4}$")
_ELSEWHERE = re.compile(r"\s*(?:[\\/]|\w+:|\.\.[\\/])")
"""How a path begins that may hold the folders of another machine."""


def split_of(folders: Sequence[str]) -> str:
    """The split that the innermost folder called like one says, also with a year (``val2017``); "" for
    none.
    """
    words = (_YEAR.sub("", folder.lower()) for folder in reversed(folders))
    return next((SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES), "")


def _parts(path: str) -> list[str]:
    """The folders and the name of a path written on any system."""
    return [p for p in re.split(r"[\\/]", path.strip()) if p not in ("", ".", "..")]


class PictureFolders:
    """The folders that pictures lie in, which tell that a picture is not the one that is meant.

    Attributes:
        holding: folders that hold pictures, "" for the root, and the split that each is called like, or "".
        splits: those splits.
    """

    def __init__(self, pictures: Iterable[str]) -> None:
        folders = dict.fromkeys(picture.rpartition("/")[0] for picture in pictures)
        self.holding = {folder: split_of(folder.split("/")) for folder in folders}
        self.splits = frozenset(self.holding.values()) - {""}
        self._names = frozenset(base_name(folder) for folder in folders) - {""}
        self._stated: dict[str, str] = {}

    def other_split(self, path: str, picture: str) -> bool:
        """Whether a path says a split by its folders, and those of the picture say another one."""
        own = self.holding.get(picture.rpartition("/")[0], "")
        return bool(own) and self._split_stated(path) not in ("", own)

    def other_folder(self, path: str, picture: str) -> bool:
        """Whether a path states another split, or a folder that is here and that the picture is not in."""
        inner = _parts(path)[-2:-1]
        here = bool(inner) and inner[0] in self._names and inner[0] not in picture.split("/")[:-1]
        return here or self.other_split(path, picture)

    def _split_stated(self, path: str) -> str:
        """The split that a path says; "" for none, and for one that only another machine has."""
        above = path[: max(path.rfind("/"), path.rfind("\\")) + 1]
        if above not in self._stated:  # folders are few
            said = split_of(_parts(above))
            here = said in self.splits or not _ELSEWHERE.match(above)
            self._stated[above] = said if here else ""
        return self._stated[above]


class PictureIndex:
    """Finds the picture that a name or an annotation file means."""

    def __init__(self, pictures: Iterable[str], annotations: Iterable[str] = ()) -> None:
        """``annotations``: the annotation files, without their endings; they tell which folders hold both."""
        self._by_stem: dict[str, list[str]] = defaultdict(list)
        self._by_name: dict[str, list[str]] = defaultdict(list)
        beside: dict[str, set[str]] = defaultdict(set)
        for picture in pictures:
            name = stem(picture)
            self._by_stem[name].append(picture)
            self._by_name[base_name(picture)].append(picture)
            beside[picture.rpartition("/")[0]].add(name)
        self._folders = PictureFolders(p for found in self._by_name.values() for p in found)
        paired = Counter[str]()
        for file in annotations:
            folder = file.rpartition("/")[0]
            if folder in beside:
                paired[folder] += 1 if stem(file) in beside[folder] else -1
        self._with_both = frozenset(folder for folder, more in paired.items() if folder and more > 0)

    def candidates(self, path: str, filename: str = "") -> list[str]:
        """Pictures that an annotation may belong to: one, when it is clear.

        Args:
            path: the annotation file, or a name from a list of pictures.
            filename: the file name that the annotation states; its folders mean nothing.
        """
        stated = base_name(filename.strip())
        near = ([p for p in found if not self._apart(path, p)] for found in self._named(path, stated))
        found = next(filter(None, near), list[str]())
        if len(found) > 1:  # a.jpg beside a.png: the annotation states which
            found = [f for f in found if base_name(f) in (stated, base_name(path))] or found
        if len(found) > 1:  # train/1.jpg and val/1.jpg: the annotation lies in a folder of the same name
            parts = set(path.split("/")[:-1])
            shared = [len(parts.intersection(f.split("/")[:-1])) for f in found]
            found = [f for f, count in zip(found, shared, strict=True) if count == max(shared)]
        return found

    def elsewhere(self, path: str, filename: str = "") -> list[str]:
        """Pictures of the right name that are those of other folders; the arguments are as above."""
        found = self._named(path, base_name(filename.strip()))
        return list(dict.fromkeys(p for named in found for p in named if self._apart(path, p)))

    def _named(self, path: str, stated: str) -> Iterator[list[str]]:
        """The pictures of the annotation's name; then those of the stated one."""
        yield self._by_stem.get(stem(path), [])
        yield self._by_name.get(stem(path), [])
        yield self._by_name.get(stated, [])
        yield self._by_stem.get(stem(stated), [])

    def _apart(self, path: str, picture: str) -> bool:
        """Whether an annotation lies where other pictures are: below another split; in a folder where
        annotations lie beside their pictures; or in ``labels/x`` where ``images/x`` is here, and the picture
        is in ``images/y``.
        """
        if self._folders.other_split(path, picture):
            return True
        folder, own = path.rpartition("/")[0], picture.rpartition("/")[0]
        if not folder:
            return False
        if folder in self._with_both:
            return not f"{own}/".startswith(f"{folder}/")
        twin = f"{own.rpartition('/')[0]}/{base_name(folder)}".lstrip("/")
        return twin not in (own, folder) and twin in self._folders.holding


def picture_of(
    file: str,
    place: str,
    index: PictureIndex,
    taken: Mapping[str, Record],
    *,
    stated: str = "",
    listed: bool = False,
) -> tuple[str, Finding | None]:
    """The picture that an annotation file belongs to.

    Args:
        file: the annotation file below the data set's root.
        place: the same file for findings.
        index: of the pictures.
        taken: records by picture of the files that were read before.
        stated: the picture's name in the file.
        listed: lists decide which pictures are used, so a missing picture is no error here.

    Returns:
        The picture, or "" and what is wrong.
    """
    matches = index.candidates(file, stated)
    if len(matches) > 1:
        message = f"may belong to {len(matches)} pictures: {', '.join(matches[:3])}"
        return "", Finding("D12", "error", message, place, 0, "give every picture its own name")
    if not matches:
        return "", _no_picture(place, stated, index.elsewhere(file, stated), listed)
    if matches[0] in taken:
        message = f"annotates {matches[0]}, as {taken[matches[0]].annotation} does"
        return "", Finding("D09", "error", message, place, 0, "remove one of the two files")
    return matches[0], None


def _no_picture(place: str, filename: str, elsewhere: Sequence[str], listed: bool) -> Finding:
    message = "has no picture" + (f" (it names '{base_name(filename)}')" if filename else "")
    message += f"; {elsewhere[0]} lies in another folder" if elsewhere else ""
    if listed:  # the lists of pictures decide what is used, and say so if they name this one
        return Finding("D12", "warn", message, place, 0, "not used")
    return Finding("D12", "error", message, place, 0, "add the picture, or remove the annotation")


def by_base_name(pictures: Iterable[str]) -> dict[str, list[str]]:
    """The pictures of every file name."""
    found = defaultdict[str, list[str]](list)
    for picture in pictures:
        found[base_name(picture)].append(picture)
    return dict(found)


def stated_pictures(
    names: Sequence[str],
    known: Mapping[str, Sequence[str]],
    folders: PictureFolders,
    near: Iterable[str] = (),
    file: str = "",
) -> list[tuple[str, str]]:
    """For every path that a file states its picture, or "" and the reason why it has none.

    Folders count as far as they are there; those of another machine do not, where the file name is clear.

    Args:
        names: the paths, written on any system.
        known: of ``by_base_name``.
        folders: of the same pictures.
        near: folders that the pictures are likely to be in, where several have a name.
        file: the file with annotations that states them; "" for a mere list of pictures.
    """
    around = set(near)
    parts = [_parts(name) for name in names]
    times = Counter(tuple(p[-1:]) for p in dict.fromkeys(map(tuple, parts)))
    split = _split_meant(file, parts, known, folders)
    chosen: list[tuple[str, str]] = []
    for name, path in zip(names, parts, strict=True):
        among = known.get(path[-1], ()) if path else ()
        found = [p for p in among if f"/{p}".endswith("/" + "/".join(path))]
        if not found and path and times[tuple(path[-1:])] == 1:  # folders of another machine
            found = [p for p in among if not folders.other_folder(name, p)]
        if split and not split_of(path[:-1]):
            found = [p for p in found if split_of(p.split("/")[:-1]) in ("", split)]
        if len(found) > 1:
            shared = [len(around.intersection(p.split("/")[:-1])) for p in found]
            found = [p for p, count in zip(found, shared, strict=True) if count == max(shared)]
        if len(found) == 1:
            chosen.append((found[0], ""))
        elif found:
            chosen.append(("", f'"{name}" may be {len(found)} pictures: {", ".join(found[:3])}'))
        else:
            other = f"; {among[0]} lies in another folder" if among else ""
            chosen.append(("", f'"{name}" is not a picture here{other}'))
    return chosen


def _split_meant(
    file: str, parts: Sequence[Sequence[str]], known: Mapping[str, Sequence[str]], folders: PictureFolders
) -> str:
    """The split whose pictures a file of annotations means by paths that say none; "" for any.

    It is that of the file's folder. That of its name (``instances_train.json``) counts only where a folder is
    called like it and names come twice: elsewhere a name is enough, and a file may choose from any folder.
    """
    inside, named = split_in_folders(file), split_in_name(file)
    if inside:
        return inside if named in ("", inside) else ""
    again = named in folders.splits and any(len(known.get(path[-1], ())) > 1 for path in parts if path)
    return named if again else ""
