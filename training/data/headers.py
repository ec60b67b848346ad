"""Which column of a table says what, by the names that people give to columns."""

from collections.abc import Sequence
from dataclasses import dataclass

from edge_runtime.images.names import plain
from training.data.labels import BAD_COLUMNS, GOOD_COLUMNS, LABEL

_PATH = """
    path image_path img_path file_path filepath image file filename file_name image_name img_name image_file img images files photo picture
    bild bilddatei bildname bildpfad datei dateiname pfad imagen archivo fichero ruta nombre_archivo nombre_imagen fichier chemin
    nom_fichier nom_image plik obraz zdjęcie ścieżka nazwa_pliku immagine percorso imagem arquivo
    图像 图片 图像路径 图片路径 文件 文件名 图片名称 路径
"""
_LABEL = """
    label labels class class_name category verdict result target status ground_truth etikett klasse kategorie ergebnis urteil bewertung
    befund etiqueta clase categoría resultado veredicto estado classe étiquette catégorie résultat statut état etykieta klasa kategoria
    wynik werdykt ocena etichetta categoria risultato esito rótulo 标签 类别 分类 结果 检测结果 判定 状态
"""
_MASK = "mask mask_path masks maske máscara masque maska maschera 掩码 掩膜"
_SPLIT = "split subset set aufteilung partición podział 划分"
_BOXES = "xmin ymin xmax x1 y1 bbox boxx bboxx regionshapeattributes points segmentation encodedpixels rle"
"""Columns that say where on an image, as `plain` writes them."""


@dataclass(frozen=True, slots=True)
class Columns:
    """Names of a header's columns, as it writes them; None where there is no such column."""

    path: str | None
    label: str | None
    states: str
    """What the label's column is understood as: `label`, or a name that states what 1 means (training.data.labels)."""
    mask: str | None
    split: str | None
    verdicts: tuple[str, ...] = ()
    """Other columns that say good or bad, too, as the label's column does."""
    refused: str = ""
    """Why images and labels are not read from it, for people; empty where they are."""

    ambiguous: bool = False
    """It is refused because it says something twice: a table of good and bad images all the same."""

    @property
    def exact(self) -> bool:
        """Whether it is called path and label, as nobody calls the columns of a table that is about something else."""
        return self.path == "path" and self.label == LABEL


def columns_of(header: Sequence[str]) -> Columns:
    """`header`: names in lower case. Names are compared without case, accents, blanks and underscores."""
    by_name = {plain(name): name for name in reversed(header)}

    def all_of(names: str) -> list[str]:
        return list(dict.fromkeys(by_name[plain(n)] for n in names.split() if plain(n) in by_name))

    paths, labels = all_of(_PATH), all_of(_LABEL)
    states = [c for c in (*GOOD_COLUMNS, *BAD_COLUMNS) if c in header]
    stated = next(iter(states), None)
    label = LABEL if LABEL in header else stated or next(iter(labels), None)
    path, mask, split = (next(iter(found), None) for found in (paths, all_of(_MASK), all_of(_SPLIT)))
    columns = ",".join(header) or "nothing"
    verdicts = tuple(c for c in dict.fromkeys((*states, *labels)) if c != label)
    twice = next((c for c in dict.fromkeys((path, label, *verdicts, mask, split)) if c and header.count(c) > 1), None)
    refused, ambiguous = "", False
    if {"object", "split", "label", "image", "mask"} <= set(header):
        refused = "it is VisA's table of all its objects; give the folder of one object, beside split_csv"
    elif set(_BOXES.split()) & set(by_name):
        refused = f"found {columns}, a table of places on images; export it as COCO, YOLO or Pascal VOC, or write a table of path,label"
    elif path is None or label is None:
        what = ", ".join(f"{name} is missing" for name, column in (("path", path), ("label", label)) if column is None)
        refused = (
            f"expected a header with path,label in its first line, found {columns}: {what}. Understood as the path:"
            f" {', '.join(_PATH.split())}; as the label: {', '.join([*_LABEL.split(), *GOOD_COLUMNS, *BAD_COLUMNS])}"
        )
    elif twice is not None:
        ambiguous = True
        refused = f"expected each column once, found {twice} {header.count(twice)} times in {columns}; keep the one that is meant"
    elif label not in (LABEL, stated) and len(labels) > 1:
        ambiguous = True
        refused = f"expected one column that says good or bad, found {' and '.join(labels)}; call the one that is meant {LABEL}"
    return Columns(path, label, label if label is not None and label == stated else LABEL, mask, split, verdicts, refused, ambiguous)
