"""What files and words mean everywhere in the house: which suffixes are read, which are not, and which words say good or bad."""

import difflib
import re
import unicodedata
from pathlib import Path

from edge_runtime.images.negation import FILLERS, SIGNS, Negations

SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".dib", ".tif", ".tiff", ".webp", ".pgm", ".ppm", ".pbm", ".pnm", ".jp2"}
)
"""Teaching, folder sources and replays read the same files."""

LOSSY = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".jp2"})
"""Formats that may give back pixels which differ a little from what was saved."""

NOT_READ = frozenset(
    {
        ".gif", ".apng", ".avif", ".avifs", ".heic", ".heif", ".hif", ".jxl", ".jxr", ".j2k", ".jpf", ".jpx", ".psd", ".psb", ".svg", ".ai",
        ".eps", ".pdf", ".ico", ".tga", ".exr", ".hdr", ".pfm", ".pcx", ".xcf", ".raw", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf",
        ".rw2", ".raf", ".npy", ".npz", ".mat", ".dcm", ".fits", ".mp4", ".avi", ".mov", ".mkv", ".webm", ".mjpeg", ".mjpg", ".zip",
        ".tar", ".tgz", ".7z", ".rar",
    }
)  # fmt: skip
"""Suffixes under which people keep pictures that nothing here reads: counted and named, never passed over in silence."""

MASK_FOLDERS = frozenset({"mask", "masks", "groundtruth", "gt", "segmentation", "segmentations", "segmentationclass", "segmentationobject"})
"""Names of folders of masks, as `plain` writes them."""

OF_SYSTEMS = frozenset(
    {
        "__macosx", "@eadir", "@tmp", "@recycle", "@recently-snapshot", "#recycle", "#snapshot", "$recycle.bin", "recycler", "recycled",
        "system volume information", "lost+found", "thumbs", "thumb", "thumbnails", "thumbnail", ".thumbnails", ".trash", "__pycache__",
    }
)  # fmt: skip
"""Folders, in lower case, that network drives, operating systems and viewers make beside pictures; what lies in them are no parts."""

WORDS: dict[str, tuple[str, str]] = {
    "English": (
        "good ok okay pass passed accept accepted acceptable normal nominal intact undamaged healthy clean fine flawless faultless perfect"
        " conforming conform compliant defectfree nondefective nodefect nodefects notbad goodpart",
        "bad ng nok ko def fail failed failure defect defects defective reject rejected rejects anomaly anomalies anomalous abnormal faulty"
        " damaged broken flawed scrap nonconforming noncompliant notok nogood notgood outofspec unacceptable badpart"
        " damage damages flaw flaws error errors wrong",
    ),
    "German": (
        "gut gute guter io inordnung gutteil gutteile gutbild fehlerfrei ohnefehler einwandfrei mangelfrei freigegeben bestanden",
        "schlecht schlechte nio nichtio nichtinordnung schlechtteil schlechtteile schlechtbild ausschuss fehler fehlerhaft defekt defekte"
        " mangelhaft beschädigt schrott gesperrt anomalie"
        " schaden schäden mangel mängel",
    ),
    "French": (
        "bon bonne bons bonnes conforme conformes accepté correct sansdéfaut",
        "mauvais mauvaise mauvaises nonconforme nonconformes défaut défauts défectueux défectueuse rebut rebuts rejeté refusé"
        " endommagé dommage",
    ),
    "Spanish": (
        "bueno buena buenos buenas correcto aceptado aprobado sindefecto sindefectos",
        "malo mala malos malas defectuoso defectuosa defecto defectos rechazado noconforme reprobado daño daños dañado",
    ),
    "Italian": (
        "buono buona buoni buone accettato conformi senzadifetti",
        "difettoso difettosa difettosi difetto difetti scarto scarti cattivo cattivi guasto rifiutato scartato danno danni danneggiato",
    ),
    "Portuguese": (
        "bom boa bons boas aprovado aceito semdefeito",
        "ruim ruins mau má defeito defeitos defeituoso reprovado rejeitado dano danos danificado",
    ),
    "Dutch": ("goed goedgekeurd", "slecht fout afkeur afgekeurd beschadigd schade"),
    "Polish": (
        "dobry dobra dobre zgodny poprawny",
        "zły zła złe wadliwy wadliwe wada niezgodny odrzut uszkodzony niedobry wad wady uszkodzenie uszkodzenia",
    ),
    "Czech": ("dobrý dobré vyhovuje", "vadný vadné špatný zmetek nevyhovuje chyba vada vady vad chyb poškozený"),
    "Hungarian": ("jó megfelelő", "rossz hibás selejt nemmegfelelő hiba sérült"),
    "Swedish": ("bra godkänd", "dålig underkänd trasig fel skada skadad"),
    "Turkish": ("iyi sağlam kusursuz hatasız hasarsız", "kötü hatalı kusurlu bozuk hata kusur hasar hasarlı"),
    "Russian": (
        "хороший хорошие годен годный норма",
        "плохой плохие брак дефект негоден негодный брака дефекта дефекты дефектов повреждение",
    ),
    "Chinese": ("良品 合格 合格品 正常 好 好品 无缺陷 無缺陷", "不良 不良品 不合格 不合格品 异常 異常 缺陷 次品 瑕疵 坏 坏品 废品"),
    "Japanese": ("良 良品 正常品 合格 良好", "不良 不良品 異常 異常品 不合格 欠陥 欠陥品"),
    "Korean": ("양품 정상 합격", "불량 불량품 비정상 불합격 결함"),
}
"""(good, bad) by language; upper case, accents, blanks, points and dashes do not count (i.O. is io, NOT-OK is notok)."""

_UNSETTLED = (
    "unknown unlabeled unlabelled unsorted unsure uncertain unclear unclassified undecided todo tbd review maybe na none null nan positive"
    " negative true false unbekannt unklar unsortiert offen"
)
UNSETTLED = frozenset(_UNSETTLED.split())
"""Words that leave open whether a part is good."""

_OPEN_SIGNS = "-−–—~+^"
"""Before a word: a dash of a list, "not", "about"?"""

_AROUND = (
    "part parts piece pieces image images img imgs pic pics picture pictures photo photos sample samples product products item items unit"
    " units case cases class label labels only teil teile bild bilder data front"
    " back top bottom side left right day tag cam camera kamera line linie shift schicht lot batch station week kw"
)
_AROUND_IT = frozenset((*_AROUND.split(), *FILLERS.split()))
_LETTERS = str.maketrans({"ł": "l", "ı": "i", "ø": "o", "đ": "d"})


def plain(word: str) -> str:
    """A word without what people write differently: case, accents, width, blanks, points, dashes, underscores.

    >>> plain("NOT-OK"), plain("i. O."), plain("Défaut")
    ('notok', 'io', 'defaut')
    """
    text = unicodedata.normalize("NFKD", word.casefold()).translate(_LETTERS)
    return "".join(c for c in text if unicodedata.category(c) != "Mn" and (c.isalnum() or c in "?+"))


def _known(which: int) -> frozenset[str]:
    return frozenset(plain(w) for pair in WORDS.values() for w in pair[which].split())


_GOOD, _BAD = _known(0), _known(1)


def _says(text: str) -> bool | None:
    return text in _GOOD if text in _GOOD or text in _BAD else None


NEGATIONS = Negations(plain, _says)


def says_good(word: str) -> bool | None:
    """Whether a label or a folder's name calls parts good (True) or bad (False); None where it does neither.

    Words such as "parts" or "images" and numbers around it do not count: "01_good", "NG images". A negation turns it around: "nicht ok",
    "no damage", "!good"; a dash before it leaves it open.

    >>> says_good("01_good"), says_good("NG images"), says_good("nicht ok"), says_good("no damage"), says_good("scratch")
    (True, False, False, True, None)
    """
    word = word.strip()
    if word[:1] in SIGNS:
        said = says_good(word[1:].lstrip("= ")) if word else None
        return None if said is None else not said
    if word[:1] in _OPEN_SIGNS:
        return None
    tokens = [t for t in re.split(r"[\s_\-.()]+", word) if t]
    weighty = [t for t in tokens if plain(t.rstrip("0123456789")) not in _AROUND_IT and not t.isdigit()]
    texts = plain(word), plain("".join(weighty))
    said = next((s for t in texts if (s := _says(t)) is not None), None)
    if said is not None:
        return said
    while tokens and tokens[0].isdigit():
        tokens.pop(0)
    while tokens and tokens[-1].isdigit():
        tokens.pop()
    tokens = [t for t in tokens if t.isdigit() or t in weighty]  # a number between keeps them apart: No. 12 OK
    return NEGATIONS.turned(plain("".join(tokens)), apart=len(tokens) > 1)


def is_unsettled(word: str) -> bool:
    """Whether a word leaves open what the part is: "unknown", "?", "negative", "OK?", "-OK".

    >>> is_unsettled("OK?"), is_unsettled("unknown"), is_unsettled("OK")
    (True, True, False)
    """
    text, word = plain(word), word.strip()
    signed = word[:1] in _OPEN_SIGNS and bool(word) and says_good(word.lstrip(_OPEN_SIGNS + " ")) is not None
    return text in UNSETTLED or text.endswith("?") or not text or signed


def nearly_good(word: str) -> str | None:
    """The word for good that was probably meant, where a slip of the pen would make a kind of defect of it ("goood").

    >>> nearly_good("goood"), nearly_good("dent")
    ('good', None)
    """
    near = difflib.get_close_matches(plain(word), sorted(w for w in _GOOD if len(w) > 3), n=1, cutoff=0.85)
    return near[0] if near and says_good(word) is None else None


def known_words() -> str:
    """The most usual words and where all of them stand, for a message."""
    good, bad = (", ".join(side.split()[:6]) for side in WORDS["English"])
    return (
        f"{good} | {bad}; those of {len(WORDS)} languages, {', '.join(list(WORDS)[1:])}, are in edge_runtime/images/{Path(__file__).name}"
    )


def is_image(path: Path) -> bool:
    """Whether a file's name says that it is a picture that is read; hidden ones are not.

    >>> is_image(Path("part 7.PNG")), is_image(Path(".part.png")), is_image(Path("part.heic"))
    (True, False, False)
    """
    return suffix_of(path) in SUFFIXES and not path.name.startswith(".")


def is_of_system(name: str) -> bool:
    """Whether a folder of that name is made by a system rather than by people."""
    return name.lower() in OF_SYSTEMS or name.lower().startswith(".trash-")


def suffix_of(path: Path) -> str:
    """In lower case, without blanks behind it."""
    return path.suffix.lower().rstrip()
