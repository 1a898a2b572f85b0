"""What is known of the weights of a backbone."""

from pipeline.artifacts.record import Frozen


class Weights(Frozen):
    """The weights of a backbone, as its model's plan, passport and card name them.

    Attributes:
        name: the backbone's, with its width where there are several.
        file: the name of their file.
        address: where they are downloaded from; empty for the file of a package.
        package: the installed package that has the file, and whose version is locked.
        sha256: of the arrays: their little-endian float32 bytes in the order of `get_weights`;
            empty where nobody has published it.
        file_sha256: of the official file; empty where it is not known.
        file_md5: the same, where Keras ships an md5.
        source: who made them.
        trained_on: the images that they were trained on.
    """

    name: str
    file: str
    address: str = ""
    package: str = ""
    sha256: str = ""
    file_sha256: str = ""
    file_md5: str = ""
    source: str
    licence: str
    trained_on: str = "ImageNet (ILSVRC 2012): 1.28 million photographs of 1,000 classes"
