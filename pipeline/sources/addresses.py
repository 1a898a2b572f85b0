"""What an address is: a path, a URL, or in an object store; and where downloads are kept."""

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote, urljoin, urlsplit


@dataclass(frozen=True)
class Store:
    """A kind of object store that fsspec reads.

    Attributes:
        package: what fsspec needs for it.
        extra: of this package, which installs that.
        login: how to log in, for messages; nothing of it is in params.yaml.
    """

    package: str
    extra: str
    login: str


STORES = {
    "s3": Store(
        "s3fs",
        "s3",
        "a login is read from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or ~/.aws; a public "
        "bucket needs FSSPEC_S3_ANON=true, another server AWS_ENDPOINT_URL",
    ),
    "gs": Store(
        "gcsfs",
        "gcs",
        "a login is read from GOOGLE_APPLICATION_CREDENTIALS, or gcloud's files; a public bucket "
        "needs FSSPEC_GS_TOKEN=anon",
    ),
    "az": Store(
        "adlfs",
        "azure",
        "a login is read from AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY or "
        "AZURE_STORAGE_SAS_TOKEN; a public container needs AZURE_STORAGE_ANON=true",
    ),
    "hf": Store("huggingface_hub", "hf", "a login is read from HF_TOKEN, or of `hf auth login`"),
}
SCHEMES = ("http", "https", *STORES)
# Names a folder or URL that is asked first, and holds <dataset>/<file>.
MIRROR = "DATASET_MIRROR"


def scheme(address: str) -> str:
    """Return the scheme of an address that can be fetched; empty where it is a path."""
    start, colon, _ = address.partition("://")
    return start if colon and start in SCHEMES else ""


def is_url(address: str) -> bool:
    """Return whether an address is fetched, and not a path."""
    return bool(scheme(address))


def is_object(address: str) -> bool:
    """Return whether an address is in an object store."""
    return scheme(address) in STORES


def file_name(source: str) -> str:
    """Return the last part of a path or address."""
    path = source.partition("://")[2] if is_object(source) else source
    if is_url(source) and not is_object(source):
        path = unquote(urlsplit(source).path)
    name = Path(path).name
    return name if name not in ("", "..") else "download"


def beside(address: str, name: str) -> str:
    """Return the address of a file by its path relative to another file."""
    if is_object(address):
        return f"{address.rpartition('/')[0]}/{name}"
    return urljoin(address, quote(name, safe="/%:@!$&'()*+,;=~"))
