"""Recognizes the format of labels by their content, and reads them."""

from __future__ import annotations

from pathlib import Path

from camoxpert_cli.data.image_paths import folders_below
from camoxpert_cli.data.layouts import IMAGE_SUFFIXES, files_in
from camoxpert_cli.errors import DataError
from camoxpert_cli.labels.alpha import read_alpha, read_rgba
from camoxpert_cli.labels.coco import is_coco, read_coco
from camoxpert_cli.labels.cvat import read_cvat
from camoxpert_cli.labels.index_masks import read_index_masks, read_indices
from camoxpert_cli.labels.labelled import Labels
from camoxpert_cli.labels.labelme import is_labelme, read_labelme
from camoxpert_cli.labels.read_json import read_json
from camoxpert_cli.labels.yolo import is_other_text, is_yolo, read_yolo

KNOWN = "COCO JSON, CVAT XML, a folder of YOLO text files, labelme JSON, index masks or transparent images"
_EXPECTED = f"pass {KNOWN}; see camox guide data"
# Images looked at in a folder without other labels.
_LOOKED_AT = 20


def read_labels(source: Path) -> Labels:
    """Read the labels of a file or folder. Raises DataError if they are malformed or of an unknown format."""
    if source.is_dir():
        return _of_folder(source)
    if not source.exists():
        raise DataError(f"{source} not found, expected labels", _EXPECTED)
    suffix = source.suffix.lower()
    if suffix == ".xml":
        return read_cvat(source)
    if suffix == ".json":
        content = read_json(source)
        if is_coco(content):
            return read_coco(source, content)
        if is_labelme(content):
            return read_labelme(source.parent, [source])
        raise DataError(f"{source} contains neither COCO's images and annotations nor labelme's shapes", _EXPECTED)
    if suffix in (".txt", ".yaml", ".yml"):
        raise DataError(f"{source} is a single file, expected a folder of YOLO text files", f"pass {source.parent}")
    raise DataError(f"{source} is a file of an unknown format", _EXPECTED)


def files_below(folder: Path, suffixes: set[str]) -> list[Path]:
    """Return the files with one of `suffixes`, lower-case, in a folder and below, sorted by folder and name.

    Raises DataError for a missing or unreadable folder; those below it are skipped.
    """
    files_in(folder)
    return [path for each in folders_below(folder) for path in files_in(each) if path.suffix.lower() in suffixes]


def _of_folder(folder: Path) -> Labels:
    """Label files come first: labelme and others keep them beside the images."""
    texts = [path for path in files_below(folder, {".txt"}) if not is_other_text(path)]
    jsons = files_below(folder, {".json"})
    tables = files_below(folder, {".xml"})
    contents = ((path, read_json(path)) for path in jsons)
    kinds = {path: "labelme" if is_labelme(each) else "COCO" if is_coco(each) else "" for path, each in contents}
    coco = [path for path, kind in kinds.items() if kind == "COCO"]
    found = {
        "YOLO text files": any(map(is_yolo, texts)),
        "labelme JSON": "labelme" in kinds.values(),
        **{f"the COCO file {path.relative_to(folder)}": True for path in coco},
        **{f"the XML file {path.relative_to(folder)}": True for path in tables},
    }
    names = [name for name, is_there in found.items() if is_there]
    if len(tables) == len(names) > 1:
        read_cvat(tables[0])  # raises DataError for the many files of Pascal VOC
    if len(names) > 1:
        listed = f"{', '.join(names[:3])}{', ...' if len(names) > 3 else ''}"
        raise DataError(f"{folder} contains several sets of labels: {listed}", "pass one of them, as a file or folder")
    if found["YOLO text files"]:
        return read_yolo(folder, texts)
    if found["labelme JSON"]:
        return read_labelme(folder, jsons)
    if coco or tables:
        return read_labels(next(iter((*coco, *tables))))
    images = files_below(folder, IMAGE_SUFFIXES)
    some = images[:_LOOKED_AT]
    if any(read_rgba(path) is not None for path in some):
        return read_alpha(folder, images)
    if some and all(read_indices(path) is not None for path in some):
        return read_index_masks(folder, images)
    what = "color images without transparency" if images else "no labels that camox knows"
    raise DataError(f"{folder} contains {what}", _EXPECTED)
