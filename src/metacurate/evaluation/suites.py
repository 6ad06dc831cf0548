"""The suites of data sets that CLIP models are compared on: tasks, metrics and folders' names.

Names are clip-benchmark's. Facts are from MetaCLIP's evaluation (SLIP's 26), DataComp's
``tasklist.yml`` and clip-benchmark's collection ``vtab``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from metacurate.evaluation.datasets import contents, name_of, plain_class_folders, tars_of
from metacurate.runtime.storage import Folder

TOP1 = "top1"
MEAN_PER_CLASS = "mean_per_class"
PREFIX, SUFFIX = "wds_", "_test"
INNER = ("wds", "vtab", "wilds", "fairness", "retrieval", "misc")
"""Folders below the root in which data sets may lie."""
SPLITS = ("test", "val", "validation", "val_images", "dev")
"""Folders of a plain data set that hold its class folders; the first that is there is taken."""
NUMBERS = r"\d+"
WORDNET = r"n\d{8}|\d+"


@dataclass(frozen=True)
class DataSet:
    """A data set of a suite.

    ``metric`` names a value of its result; ``aliases``: further names of its folder; ``names``:
    what clip-benchmark's class names are filed under, and ``order``: how the folders of all classes
    must be called for those names to be in their order; ``tars``: whether they are in the order of
    the numbers in tars; ``field``: the place of an image's group in its ``KEY.npy``; ``lacking``:
    why it cannot be evaluated; ``classes``: how many were published, 0 if that is not known.
    """

    name: str
    title: str
    metric: str = TOP1
    aliases: tuple[str, ...] = ()
    names: str = ""
    order: str = ""
    tars: bool = True
    task: str = "classification"
    field: int | None = None
    lacking: str = ""
    classes: int = 0

    @property
    def short(self) -> str:
        """The name without the collection's (``vtab/``)."""
        return self.name.rpartition("/")[2]

    @property
    def folders(self) -> tuple[str, ...]:
        """What its folder may be called, as ``plain_name`` gives it."""
        return tuple(dict.fromkeys(map(plain_name, (self.name, self.short, *self.aliases))))


def plain_name(name: str) -> str:
    """A folder's name without the layout's prefix and suffix, case, and what is between words."""
    name = name.lower().removeprefix(PREFIX).removesuffix(SUFFIX)
    return re.sub(r"[^a-z0-9]", "", name)


def _known(
    title: str,
    aliases: tuple[str, ...] = (),
    names: str = "",
    order: str = "",
    *,
    tars: bool = True,
) -> DataSet:
    return DataSet("", title, TOP1, aliases, names, order, tars)


_KNOWN = {
    "caltech101": _known(
        "Caltech-101",
        names="caltech101",
        order=r"BACKGROUND_Google|Faces|Faces_easy|Leopards|Motorbikes|[a-z].*",
        tars=False,  # VTAB numbers the classes in another order than torchvision
    ),
    "camelyon17": _known("Camelyon17"),
    "cars": _known("Stanford Cars", ("stanford_cars",)),
    "cifar10": _known("CIFAR-10"),
    "cifar100": _known("CIFAR-100"),
    "clevr_closest_object_distance": _known(
        "CLEVR Distance", ("clevr_distance",), "clevr_closest_object_distance", NUMBERS
    ),
    "clevr_count_all": _known("CLEVR Counts", ("clevr_counts",), "clevr_count_all", NUMBERS),
    "country211": _known("Country211", (), "country211", r"[A-Z]{2}"),
    "cub": _known("CUB-200", ("cub200", "cub_200_2011")),
    "diabetic_retinopathy": _known("Diabetic Retinopathy", (), "diabetic_retinopathy", NUMBERS),
    "dmlab": _known("DMLab", (), "dmlab", NUMBERS),
    "dollar_street": _known("Dollar Street"),
    "dsprites_label_orientation": _known("dSprites Orientation", ("dsprites_orientation",)),
    "dsprites_label_x_position": _known("dSprites Position", ("dsprites_x_position",)),
    "dtd": _known("Describable Textures", ("describable_textures",)),
    "eurosat": _known(
        "EuroSAT",
        (),
        "eurosat",
        r"AnnualCrop|Forest|HerbaceousVegetation|Highway|Industrial|Pasture|PermanentCrop"
        r"|Residential|River|SeaLake",
    ),
    "fer2013": _known(
        "FER-2013",
        ("facial_emotion_recognition_2013",),
        "fer2013",
        r"angry|disgust(ed)?|fear(ful)?|happy|neutral|sad|surprised?",
    ),
    "fgvc_aircraft": _known("FGVC Aircraft", ("aircraft",)),
    "flickr30k": _known("Flickr30k", ("flickr",)),
    "flowers": _known(
        "Oxford Flowers-102", ("flowers102", "oxford_flowers102"), "flowers", NUMBERS
    ),
    "fmow": _known("FMoW"),
    "food101": _known("Food-101"),
    "geode": _known("GeoDE"),
    "gtsrb": _known("GTSRB", (), "gtsrb", NUMBERS),
    "hateful_memes": _known("Hateful Memes"),
    "imagenet-a": _known("ImageNet-A"),
    "imagenet-o": _known("ImageNet-O"),
    "imagenet-r": _known("ImageNet-R"),
    "imagenet1k": _known("ImageNet", ("imagenet", "imagenet_1k"), "imagenet1k", WORDNET),
    "imagenet_sketch": _known("ImageNet Sketch", (), "imagenet1k", WORDNET),
    "imagenetv2": _known("ImageNet v2", (), "imagenet1k", WORDNET),
    "iwildcam": _known("iWildCam"),
    "kinetics700": _known("Kinetics-700", ("k700",)),
    "kitti_closest_vehicle_distance": _known(
        "KITTI Distance",
        ("kitti", "kitti_distance"),
        "kitti_closest_vehicle_distance",
        NUMBERS,
    ),
    "mnist": _known("MNIST", (), "mnist", NUMBERS),
    "mscoco_captions": _known("MSCOCO", ("mscoco", "coco")),
    "objectnet": _known("ObjectNet"),
    "pcam": _known("PatchCamelyon", ("patch_camelyon",), "pcam", NUMBERS),
    "pets": _known("Oxford-IIIT Pets", ("oxford_pets", "oxford_iiit_pets"), "pets", NUMBERS),
    "renderedsst2": _known("Rendered SST2", ("sst2",)),
    "resisc45": _known("RESISC45"),
    "smallnorb_label_azimuth": _known("smallNORB Azimuth", ("smallnorb_azimuth",)),
    "smallnorb_label_elevation": _known("smallNORB Elevation", ("smallnorb_elevation",)),
    "stl10": _known("STL-10"),
    "sun397": _known("SUN397"),
    "svhn": _known("SVHN", (), "svhn", NUMBERS),
    "ucf101": _known("UCF101", ("ucf101_frames",)),
    "voc2007": _known("Pascal VOC 2007"),
    "winogavil": _known("WinoGAViL"),
}
_CLASSES = {
    "caltech101": 102, "camelyon17": 2, "cars": 196, "cifar10": 10, "cifar100": 100,
    "clevr_closest_object_distance": 6, "clevr_count_all": 8, "country211": 211, "cub": 200,
    "diabetic_retinopathy": 5, "dmlab": 6, "dollar_street": 58, "dtd": 47, "eurosat": 10,
    "fer2013": 7, "fgvc_aircraft": 100, "flowers": 102, "fmow": 62, "food101": 101, "geode": 40,
    "gtsrb": 43, "hateful_memes": 2, "imagenet-a": 200, "imagenet-o": 200, "imagenet-r": 200,
    "imagenet1k": 1000, "imagenet_sketch": 1000, "imagenetv2": 1000, "iwildcam": 182,
    "kinetics700": 700, "kitti_closest_vehicle_distance": 4, "mnist": 10, "objectnet": 113,
    "pcam": 2, "pets": 37, "renderedsst2": 2, "resisc45": 45, "stl10": 10, "sun397": 397,
    "svhn": 10, "ucf101": 101, "voc2007": 20,
}  # fmt: skip
WINOGAVIL = "no layout of folders is published for it (candidate images for a cue)"


def _data_set(
    name: str,
    metric: str = TOP1,
    *,
    task: str = "classification",
    field: int | None = None,
    lacking: str = "",
) -> DataSet:
    short = name.rpartition("/")[2]
    return replace(
        _KNOWN[short], name=name, metric=metric, task=task, field=field, lacking=lacking,
        classes=_CLASSES.get(short, 0),
    )  # fmt: skip


def _retrieval(name: str) -> DataSet:
    return _data_set(name, "mean_recall_at_1", task="retrieval")


_SLIP26 = (
    *map(_data_set, ("food101", "cifar10", "cifar100", "cub", "sun397", "cars")),
    _data_set("fgvc_aircraft", MEAN_PER_CLASS),
    _data_set("vtab/dtd"),
    _data_set("vtab/pets", MEAN_PER_CLASS),
    _data_set("vtab/caltech101", MEAN_PER_CLASS),
    _data_set("vtab/flowers", MEAN_PER_CLASS),
    *map(_data_set, ("mnist", "fer2013", "stl10", "vtab/eurosat", "vtab/resisc45", "gtsrb")),
    _data_set("vtab/kitti_closest_vehicle_distance"),
    *map(_data_set, ("country211", "vtab/pcam", "ucf101")),
    _data_set("kinetics700", "mean_of_top1_and_top5"),
    _data_set("vtab/clevr_count_all"),
    _data_set("hateful_memes", "roc_auc"),
    *map(_data_set, ("renderedsst2", "imagenet1k")),
)
_DATACOMP38 = (
    _data_set("imagenet1k"),
    _data_set("vtab/caltech101", MEAN_PER_CLASS),
    *map(
        _data_set,
        ("cifar10", "vtab/cifar100", "vtab/clevr_count_all", "vtab/clevr_closest_object_distance"),
    ),
    *map(_data_set, ("country211", "vtab/dtd", "vtab/eurosat")),
    _data_set("fgvc_aircraft", MEAN_PER_CLASS),
    *map(_data_set, ("food101", "gtsrb", "imagenet_sketch", "imagenetv2", "imagenet-a")),
    *map(_data_set, ("imagenet-o", "imagenet-r", "vtab/kitti_closest_vehicle_distance", "mnist")),
    _data_set("objectnet"),
    _data_set("vtab/flowers", MEAN_PER_CLASS),
    _data_set("vtab/pets", MEAN_PER_CLASS),
    *map(_data_set, ("voc2007", "vtab/pcam", "renderedsst2", "vtab/resisc45", "cars", "stl10")),
    *map(_data_set, ("sun397", "vtab/svhn")),
    _retrieval("flickr30k"),
    _retrieval("mscoco_captions"),
    _data_set("misc/winogavil", "jaccard", lacking=WINOGAVIL),
    _data_set("wilds/iwildcam", "f1_macro"),
    _data_set("wilds/camelyon17"),
    _data_set("wilds/fmow", "worst_group_top1", field=0),
    _data_set("fairness/dollar_street", "worst_group_top5", field=0),
    _data_set("fairness/geode", "worst_group_top1", field=0),
)
_VTAB = tuple(
    _data_set(f"vtab/{name}" if name != "sun397" else name)
    for name in (
        "caltech101", "cifar100", "clevr_count_all", "clevr_closest_object_distance",
        "diabetic_retinopathy", "dmlab", "dsprites_label_orientation", "dsprites_label_x_position",
        "dtd", "eurosat", "kitti_closest_vehicle_distance", "flowers", "pets", "pcam", "resisc45",
        "smallnorb_label_azimuth", "smallnorb_label_elevation", "sun397", "svhn",
    )
)  # fmt: skip
SUITES = {"slip26": _SLIP26, "datacomp38": _DATACOMP38, "vtab": _VTAB}


def folders_of(root: str) -> dict[str, list[str]]:
    """The folders below a root that may be data sets, by their plain names; tars come first.

    Those in ``INNER`` are found under both names (``vtab/dtd``, ``dtd``).
    """
    found: dict[str, list[str]] = {}

    def look(place: str, prefix: str) -> None:
        for folder in contents(place)[0]:
            name = plain_name(name_of(folder))
            if name in INNER:
                look(folder, name)
            for known in dict.fromkeys((prefix + name, name)):
                found.setdefault(known, []).append(folder)

    look(root, "")
    return found


def places_of(data_set: DataSet, folders: dict[str, list[str]]) -> list[str]:
    """Where a data set lies, tars first: one is taken. A plain one is its split's folder."""
    found = dict.fromkeys(place for name in data_set.folders for place in folders.get(name, ()))
    places = sorted(found, key=lambda place: not tars_of(place))
    return [_split(place) for place in places]


def _split(place: str) -> str:
    """The folder with a plain data set's class folders: its own, or that of its test split."""
    if not tars_of(place):
        for split in SPLITS:
            inner = Folder(place).address(split)
            if plain_class_folders(inner):
                return inner
    return place
