"""What is known of torchvision's classification sets without loading them: one entry per set.

The training images are those of `train` together: where a set has a validation part, it is trained on as well, as is
usual where such sets are compared (Kornblith et al. 2019), and the run holds out its own. Terms are what the authors
say, in short; read their page before you publish anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from iekd.data.bundled import CIFAR10_CLASSES, FASHION_CLASSES

SCHEME = "torchvision:"
Part = Mapping[str, Any]  # arguments of the class


@dataclass(frozen=True)
class Facts:
    """One set.

    Args:
        class_name: its class in torchvision.datasets.
        title: its name on the page.
        train_images, test_images: how many; test_images is 0 if the test images have to be drawn.
        classes, channels: how many; channels is 1 for grey images.
        resolution: side of the images, or what they are usually resized to.
        train, test: arguments of the class for the training and test images; no test: they have to be drawn.
        folder: what lies below the root once it is there. within: the folder below ours that is the class's root.
        download: its size; empty if it cannot be downloaded.
        by_hand: what to put into `folder` where it is not downloaded.
        terms: of its use. paper: to cite.
        class_names: where they are few, or torchvision's are not to be used; else torchvision's.
        name: in this program; empty for SCHEME and the class's name.
        in_files: whether its images are files that can be read one by one.
        on_its_side: whether the images are stored with rows and columns exchanged.
        first_label: torchvision's label of the first class.
    """

    class_name: str
    title: str
    train_images: int
    test_images: int
    classes: int
    channels: int
    resolution: int
    train: tuple[Part, ...]
    test: tuple[Part, ...]
    folder: str
    download: str
    by_hand: str
    terms: str
    paper: str
    class_names: tuple[str, ...] = ()
    name: str = ""
    within: str = ""
    in_files: bool = False
    on_its_side: bool = False
    first_label: int = 0

    @property
    def called(self) -> str:
        """The dataset's name."""
        return self.name or SCHEME + self.class_name


# as the downloads name them, so that an order of classes can be checked before anything is downloaded
CIFAR100 = (
    "apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can "
    "castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin "
    "elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster "
    "man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck "
    "pine_tree plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk "
    "skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone television tiger "
    "tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm"
)
CIFAR100_CLASSES = tuple(CIFAR100.split())
DIGITS = tuple("0123456789")
EMNIST_CLASSES = tuple("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabdefghnqrt")
EUROSAT_CLASSES = (
    "AnnualCrop", "Forest", "HerbaceousVegetation", "Highway", "Industrial", "Pasture", "PermanentCrop", "Residential",
    "River", "SeaLake",
)  # fmt: skip
FER_CLASSES = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
FLOWERS_CLASSES = (
    "pink primrose", "hard-leaved pocket orchid", "canterbury bells", "sweet pea", "english marigold", "tiger lily",
    "moon orchid", "bird of paradise", "monkshood", "globe thistle", "snapdragon", "colt's foot", "king protea",
    "spear thistle", "yellow iris", "globe-flower", "purple coneflower", "peruvian lily", "balloon flower",
    "giant white arum lily", "fire lily", "pincushion flower", "fritillary", "red ginger", "grape hyacinth",
    "corn poppy", "prince of wales feathers", "stemless gentian", "artichoke", "sweet william", "carnation",
    "garden phlox", "love in the mist", "mexican aster", "alpine sea holly", "ruby-lipped cattleya", "cape flower",
    "great masterwort", "siam tulip", "lenten rose", "barbeton daisy", "daffodil", "sword lily", "poinsettia",
    "bolero deep blue", "wallflower", "marigold", "buttercup", "oxeye daisy", "common dandelion", "petunia",
    "wild pansy", "primula", "sunflower", "pelargonium", "bishop of llandaff", "gaura", "geranium", "orange dahlia",
    "pink-yellow dahlia?", "cautleya spicata", "japanese anemone", "black-eyed susan", "silverbush",
    "californian poppy", "osteospermum", "spring crocus", "bearded iris", "windflower", "tree poppy", "gazania",
    "azalea", "water lily", "rose", "thorn apple", "morning glory", "passion flower", "lotus", "toad lily",
    "anthurium", "frangipani", "clematis", "hibiscus", "columbine", "desert-rose", "tree mallow", "magnolia",
    "cyclamen", "watercress", "canna lily", "hippeastrum", "bee balm", "ball moss", "foxglove", "bougainvillea",
    "camellia", "mallow", "mexican petunia", "bromelia", "blanket flower", "trumpet creeper", "blackberry lily",
)  # fmt: skip
GTSRB_CLASSES = (
    "speed limit 20", "speed limit 30", "speed limit 50", "speed limit 60", "speed limit 70", "speed limit 80",
    "end of speed limit 80", "speed limit 100", "speed limit 120", "no passing", "no passing for trucks",
    "right of way at the next crossing", "priority road", "yield", "stop", "no vehicles", "no trucks", "no entry",
    "general caution", "curve to the left", "curve to the right", "double curve", "bumpy road", "slippery road",
    "road narrows on the right", "road work", "traffic signals", "pedestrians", "children crossing",
    "bicycles crossing", "ice or snow", "wild animals", "end of all limits", "turn right ahead", "turn left ahead",
    "ahead only", "straight or right", "straight or left", "keep right", "keep left", "roundabout", "end of no passing",
    "end of no passing for trucks",
)  # fmt: skip
KMNIST_CLASSES = ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo")
STL10_CLASSES = ("airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck")

BY_FLAG = ({"train": True},), ({"train": False},)
BY_SPLIT = ({"split": "train"},), ({"split": "test"},)
WITH_VALIDATION = ({"split": "train"}, {"split": "val"}), ({"split": "test"},)
TRAINVAL = ({"split": "trainval"},), ({"split": "test"},)
DRAWN: tuple[tuple[Part, ...], tuple[Part, ...]] = ({},), ()
IDX = "the four '*-ubyte' files"
NOT_STATED = "terms not stated"
RESEARCH = "for research that is not commercial"

FACTS: tuple[Facts, ...] = (
    Facts("FashionMNIST", "Fashion-MNIST, all 60,000 images", 60_000, 10_000, 10, 1, 28, *BY_FLAG, "FashionMNIST/raw",
          "31 MB", "the four '*-ubyte.gz' files", "MIT licence", "Xiao et al. 2017", FASHION_CLASSES, "fashion-mnist"),
    Facts("CIFAR10", "CIFAR-10", 50_000, 10_000, 10, 3, 32, *BY_FLAG, "cifar-10-batches-py", "170 MB",
          "the unpacked 'cifar-10-python.tar.gz'", NOT_STATED, "Krizhevsky 2009", CIFAR10_CLASSES, "cifar10"),
    Facts("CIFAR100", "CIFAR-100", 50_000, 10_000, 100, 3, 32, *BY_FLAG, "cifar-100-python", "170 MB",
          "the unpacked 'cifar-100-python.tar.gz'", NOT_STATED, "Krizhevsky 2009", CIFAR100_CLASSES, "cifar100"),
    # drawings and writing
    Facts("MNIST", "MNIST", 60_000, 10_000, 10, 1, 28, *BY_FLAG, "MNIST/raw", "12 MB", IDX, "CC BY-SA 3.0",
          "LeCun et al. 1998", DIGITS),
    Facts("KMNIST", "Kuzushiji-MNIST", 60_000, 10_000, 10, 1, 28, *BY_FLAG, "KMNIST/raw", "21 MB", IDX, "CC BY-SA 4.0",
          "Clanuwat et al. 2018", KMNIST_CLASSES),
    Facts("QMNIST", "QMNIST", 60_000, 60_000, 10, 1, 28, *BY_FLAG, "QMNIST/raw", "20 MB", "the '*-ubyte' files",
          "BSD licence", "Yadav & Bottou 2019", DIGITS),
    Facts("EMNIST", "EMNIST, balanced letters and digits", 112_800, 18_800, 47, 1, 28,
          ({"split": "balanced", "train": True},), ({"split": "balanced", "train": False},), "EMNIST/raw", "560 MB",
          "the 'emnist-balanced-*-ubyte' files", NOT_STATED, "Cohen et al. 2017", EMNIST_CLASSES,
          on_its_side=True),
    Facts("USPS", "USPS", 7_291, 2_007, 10, 1, 16, *BY_FLAG, "usps.bz2", "8 MB", "'usps.bz2' and 'usps.t.bz2'",
          NOT_STATED, "Hull 1994", DIGITS),
    Facts("SEMEION", "Semeion digits", 1_593, 0, 10, 1, 16, *DRAWN, "semeion.data", "3 MB", "'semeion.data'",
          "CC BY 4.0", "Buscema & Terzi 1994", DIGITS),
    Facts("SVHN", "SVHN, house numbers", 73_257, 26_032, 10, 3, 32, *BY_SPLIT, "train_32x32.mat", "250 MB",
          "'train_32x32.mat' and 'test_32x32.mat'", RESEARCH, "Netzer et al. 2011", DIGITS),
    Facts("RenderedSST2", "Rendered SST2, sentences as images", 7_792, 1_821, 2, 3, 224, *WITH_VALIDATION,
          "rendered-sst2", "some hundred MB", "the unpacked 'rendered-sst2.tgz'", NOT_STATED, "Radford et al. 2021",
          ("negative", "positive"), in_files=True),
    # small photographs
    Facts("STL10", "STL-10", 5_000, 8_000, 10, 3, 96, *BY_SPLIT, "stl10_binary", "2.6 GB",
          "the unpacked 'stl10_binary.tar.gz'", NOT_STATED, "Coates et al. 2011", STL10_CLASSES),
    Facts("EuroSAT", "EuroSAT, land use from space", 27_000, 0, 10, 3, 64, *DRAWN, "eurosat/2750", "94 MB",
          "the unpacked 'EuroSAT.zip'", "MIT licence", "Helber et al. 2019", EUROSAT_CLASSES, in_files=True),
    Facts("GTSRB", "GTSRB, traffic signs", 26_640, 12_630, 43, 3, 32, *BY_SPLIT, "gtsrb/GTSRB", "280 MB",
          "the unpacked 'GTSRB-Training_fixed.zip' and 'GTSRB_Final_Test_Images.zip', and 'GT-final_test.csv' above",
          NOT_STATED, "Stallkamp et al. 2012", GTSRB_CLASSES, in_files=True),
    Facts("FER2013", "FER 2013, faces", 28_709, 7_178, 7, 1, 48, *BY_SPLIT, "fer2013", "",
          "'fer2013.csv' or 'icml_face_data.csv' of Kaggle's 'challenges in representation learning: facial expression "
          "recognition challenge'", NOT_STATED, "Goodfellow et al. 2013", FER_CLASSES),
    # photographs
    Facts("Imagenette", "Imagenette, ten easy classes of ImageNet", 9_469, 3_925, 10, 3, 224,
          ({"split": "train", "size": "320px"},), ({"split": "val", "size": "320px"},), "imagenette2-320", "340 MB",
          "the unpacked 'imagenette2-320.tgz'", "Apache-2.0, images as ImageNet", "Howard 2019", in_files=True),
    Facts("Flowers102", "Oxford Flowers 102", 2_040, 6_149, 102, 3, 224, *WITH_VALIDATION, "flowers-102", "345 MB",
          "the unpacked '102flowers.tgz', 'imagelabels.mat' and 'setid.mat'", NOT_STATED, "Nilsback & Zisserman 2008",
          FLOWERS_CLASSES, in_files=True),
    Facts("OxfordIIITPet", "Oxford-IIIT Pets", 3_680, 3_669, 37, 3, 224, *TRAINVAL, "oxford-iiit-pet", "810 MB",
          "the unpacked 'images.tar.gz' and 'annotations.tar.gz'", "CC BY-SA 4.0", "Parkhi et al. 2012", in_files=True),
    Facts("Food101", "Food-101", 75_750, 25_250, 101, 3, 224, *BY_SPLIT, "food-101", "5 GB",
          "the unpacked 'food-101.tar.gz'", RESEARCH, "Bossard et al. 2014", in_files=True),
    Facts("DTD", "Describable Textures", 3_760, 1_880, 47, 3, 224, *WITH_VALIDATION, "dtd/dtd", "630 MB",
          "the unpacked 'dtd-r1.0.1.tar.gz'", RESEARCH, "Cimpoi et al. 2014", in_files=True),
    Facts("FGVCAircraft", "FGVC Aircraft", 6_667, 3_333, 100, 3, 224, *TRAINVAL, "fgvc-aircraft-2013b", "2.8 GB",
          "the unpacked 'fgvc-aircraft-2013b.tar.gz'", RESEARCH, "Maji et al. 2013", in_files=True),
    Facts("StanfordCars", "Stanford Cars", 8_144, 8_041, 196, 3, 224, *BY_SPLIT, "stanford_cars", "",
          "the folders 'devkit', 'cars_train' and 'cars_test' and 'cars_test_annos_withlabels.mat'", RESEARCH,
          "Krause et al. 2013", in_files=True),
    Facts("Caltech101", "Caltech 101", 8_677, 0, 101, 3, 224, *DRAWN, "caltech101/101_ObjectCategories", "137 MB",
          "the unpacked '101_ObjectCategories.tar.gz'", "CC BY 4.0", "Fei-Fei et al. 2004", in_files=True),
    Facts("Caltech256", "Caltech 256", 30_607, 0, 257, 3, 224, *DRAWN, "caltech256/256_ObjectCategories", "1.2 GB",
          "the unpacked '256_ObjectCategories.tar'", "CC BY 4.0", "Griffin et al. 2007", in_files=True),
    Facts("SUN397", "SUN397, scenes", 108_754, 0, 397, 3, 224, *DRAWN, "SUN397", "39 GB",
          "the unpacked 'SUN397.tar.gz'", RESEARCH, "Xiao et al. 2010", in_files=True),
    Facts("Country211", "Country211, photographs by country", 42_200, 21_100, 211, 3, 224,
          ({"split": "train"}, {"split": "valid"}), ({"split": "test"},), "country211", "11 GB",
          "the unpacked 'country211.tgz'", "images under Creative Commons", "Radford et al. 2021", in_files=True),
    Facts("CLEVRClassification", "CLEVR, how many objects", 70_000, 15_000, 8, 3, 224, ({"split": "train"},),
          ({"split": "val"},), "clevr/CLEVR_v1.0", "18 GB", "the unpacked 'CLEVR_v1.0.zip'", "CC BY 4.0",
          "Johnson et al. 2017", (*"3456789", "10"), in_files=True, first_label=3),
    Facts("Places365", "Places365, small", 1_803_460, 36_500, 365, 3, 224,
          ({"split": "train-standard", "small": True},), ({"split": "val", "small": True},),
          "places365/data_256_standard", "25 GB", "the unpacked 'train_256_places365standard.tar'", RESEARCH,
          "Zhou et al. 2017", within="places365", in_files=True),
    Facts("INaturalist", "iNaturalist 2021, mini", 500_000, 100_000, 10_000, 3, 224,
          ({"version": "2021_train_mini"},), ({"version": "2021_valid"},), "inaturalist/2021_train_mini", "51 GB",
          "the unpacked 'train_mini.tar.gz', named '2021_train_mini', and 'val.tar.gz', named '2021_valid'", RESEARCH,
          "Van Horn et al. 2021", within="inaturalist", in_files=True),
    Facts("ImageNet", "ImageNet 2012", 1_281_167, 50_000, 1_000, 3, 224, ({"split": "train"},), ({"split": "val"},),
          "imagenet", "",
          "'ILSVRC2012_devkit_t12.tar.gz', 'ILSVRC2012_img_train.tar' and 'ILSVRC2012_img_val.tar' of image-net.org",
          RESEARCH, "Russakovsky et al. 2015", within="imagenet", in_files=True),
)  # fmt: skip

# torchvision's sets that a name of ours is refused for, and why
OTHERS = {
    "PCAM": "is stored as HDF5, which is not read here: save its images in a folder per class",
    "CelebA": "has forty yes-or-no attributes instead of one class per image",
    "Omniglot": "has other characters in its test images than in its training images",
    "LFWPeople": "has other people in its test images than in its training images",
    "FakeData": "is noise",
    "LSUN": "is stored as LMDB, which is not read here: save its images in a folder per class",
    "LSUNClass": "is stored as LMDB, which is not read here, and has a single class",
    **dict.fromkeys(("CocoCaptions", "SBU", "Flickr8k", "Flickr30k"), "has sentences instead of classes"),
    **dict.fromkeys(
        ("CocoDetection", "VOCDetection", "VOCSegmentation", "SBDataset", "Cityscapes", "WIDERFace", "Kitti"),
        "has boxes or outlines in its images instead of one class per image",
    ),
    **dict.fromkeys(("Kinetics", "HMDB51", "UCF101", "MovingMNIST"), "has videos instead of images"),
    **dict.fromkeys(("PhotoTour", "LFWPairs"), "has pairs of images that do or do not show the same"),
    **dict.fromkeys(
        (
            "KittiFlow",
            "Sintel",
            "FlyingChairs",
            "FlyingThings3D",
            "HD1K",
            "Kitti2012Stereo",
            "Kitti2015Stereo",
            "CarlaStereo",
            "Middlebury2014Stereo",
            "CREStereo",
            "FallingThingsStereo",
            "SceneFlowStereo",
            "SintelStereo",
            "InStereo2k",
            "ETH3DStereo",
        ),
        "has pairs of images with the distances or movements between them instead of classes",
    ),
    "ImageFolder": "is any folder: give folder:PATH",
    "DatasetFolder": "is any folder: give folder:PATH",
}
