"""Finding and opening files that the user named: one way, for every room."""

import gzip
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import pytest

from metacurate.analysis.read_counts import read_card
from metacurate.commoncrawl.extract import find_sources
from metacurate.deduplication.blocklist import read_blocklist
from metacurate.errors import UserError
from metacurate.evaluation.datasets import class_texts
from metacurate.metadata.build import DUMPS
from metacurate.metadata.store import load_metadata
from metacurate.pool.find import find
from metacurate.runtime.find import Found, Wanted, are_small, files_below, find_files
from metacurate.runtime.inputs import read_text, read_toml
from metacurate.runtime.run import open_run
from metacurate.runtime.storage import Folder, create_file, resolve
from metacurate.training.shards import ShardsConfig, find_shards

DATA = Wanted("data file", "they end in .d", lambda address: address.endswith(".d"))
FILES = {"a.d": 1, "deep/b.d": 22, "deep/er/c.d": 333, "deep/other.txt": 4, "[1].d": 5}
UNSEEN = (".hidden.d", ".git/x.d", "__MACOSX/x.d", "deep/._a.d")


@pytest.fixture(params=["local", "memory"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    folder = str(tmp_path / "data") if request.param == "local" else "memory:///finding"
    for name in (*FILES, *UNSEEN):
        with create_file(f"{folder}/{name}") as file:
            file.write(b"x" * FILES.get(name, 1))
    yield folder
    if request.param == "memory":
        fsspec.filesystem("memory").rm("/finding", recursive=True)


@pytest.mark.parametrize(
    ("inputs", "names"),
    [
        (["{}"], ["[1].d", "a.d", "deep/b.d", "deep/er/c.d"]),
        (["{}/"], ["[1].d", "a.d", "deep/b.d", "deep/er/c.d"]),
        (["{}/a.d"], ["a.d"]),
        (["{}/[1].d"], ["[1].d"]),  # a file of that name comes before a pattern
        (["{}/.hidden.d"], [".hidden.d"]),
        (["{}/*.d"], ["[1].d", "a.d"]),
        (["{}/*"], ["[1].d", "a.d", "deep/b.d", "deep/er/c.d"]),
        (["{}/?.d", "{}/deep", "{}/a.d"], ["a.d", "deep/b.d", "deep/er/c.d"]),
    ],
)
def test_inputs_name_files(root: str, inputs: list[str], names: list[str]) -> None:
    found = find_files([given.format(root) for given in inputs], DATA)
    assert [(f.address, f.size) for f in found.files] == [
        (f"{root}/{name}", FILES.get(name, 1)) for name in names
    ]


@pytest.mark.parametrize(
    ("inputs", "most_bytes", "most_files", "small"),
    [
        ([""], 400, 5, True),  # all that is not hidden: 365 bytes in five files
        ([""], 364, 5, False),
        ([""], 400, 4, False),
        (["a.d"], 1, 1, True),
        (["a.d", "deep"], 1000, 3, False),
        (["[1].d"], 5, 1, True),
        (["*.d"], 6, 2, True),
        (["*.d"], 5, 2, False),
        (["**/*.d"], 100, 5, False),  # 361 bytes, of which 22 are one folder down
        (["nothing"], 400, 5, False),
        ([], 400, 5, False),
    ],
)
def test_inputs_that_are_small(
    root: str, inputs: list[str], most_bytes: int, most_files: int, small: bool
) -> None:
    named = [f"{root}/{given}" for given in inputs]
    is_here = root.startswith("/")  # what is remote is not asked
    assert are_small(named, most_bytes, most_files) == (small and is_here)


def test_what_lies_beside_is_told(root: str) -> None:
    assert find_files([root], DATA).others == {f"{root}/deep/other.txt"}
    assert find_files([f"{root}/a.d"], DATA).others == set()
    assert files_below(f"{root}/deep").keys() == {"b.d", "er/c.d", "other.txt"}


@pytest.mark.parametrize("packed", [False, True])
def test_a_list_stands_for_its_lines(root: str, packed: bool) -> None:
    content = f"{root}/a.d\n\n  {root}/deep/er\r\n".encode()
    name = f"{root}/list.gz" if packed else f"{root}/list"
    with create_file(name) as file:
        file.write(gzip.compress(content) if packed else content)
    found = find_files([f"@{name}", f"{root}/deep/b.d"], DATA)
    assert found.require_all() == [f"{root}/{n}" for n in ("a.d", "deep/b.d", "deep/er/c.d")]


def test_what_a_list_names_is_no_output(root: str, tmp_path: Path) -> None:
    with create_file(f"{root}/list") as file:
        file.write(f"{root}/deep/b.d\n".encode())
    with pytest.raises(UserError, match="overlaps"), open_run(root, inputs=[f"@{root}/list"]):
        pass


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("nowhere", "there is no file or folder {}/nowhere"),
        ("nowhere*", "no file or folder matches {}/nowhere*"),
        ("deep/other.txt", "{}/deep/other.txt is no data file; they end in .d"),
        ("deep/*.txt", "{}/deep/*.txt: no data file found; they end in .d"),
    ],
)
def test_what_names_nothing_is_told(root: str, given: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        find_files([f"{root}/{given}"], DATA)
    assert str(caught.value) == message.format(root)


CUT_SHORT = gzip.compress(b"a.d\n", mtime=0)[:-9]


@pytest.mark.parametrize("content", [None, b"\xff\xfe\n", CUT_SHORT])
def test_a_list_that_is_none_is_told(tmp_path: Path, content: bytes | None) -> None:
    listed = tmp_path / "list.gz"
    if content is not None:
        listed.write_bytes(content)
    with pytest.raises(UserError, match=r"list of inputs .*list\.gz"):
        find_files([f"@{listed}"], DATA)


def test_what_cannot_be_opened_is_told_unopened(tmp_path: Path) -> None:
    (tmp_path / "a.d").write_bytes(b"x")
    os.mkfifo(tmp_path / "pipe.d")
    (tmp_path / "lost.d").symlink_to("nowhere")
    (tmp_path / "linked.d").symlink_to(tmp_path)
    found = find_files([str(tmp_path)], DATA)
    assert found.files == find_files([str(tmp_path / "a.d")], DATA).files
    assert [f.fault.partition(",")[0] for f in found.unusable] == [
        "is a folder", "is a link to nothing", "is a pipe",
    ]  # fmt: skip
    with pytest.raises(UserError, match=r"pipe\.d is a pipe"):
        find_files([str(tmp_path / "pipe.d")], DATA)


@pytest.mark.parametrize("form", ["{}", "{}/*.d"])
def test_marks_of_addresses_in_names(root: str, form: str) -> None:
    """On this machine they are plain characters; in a store no address can name them."""
    folder, names = f"{root}/marks", ["::c.d", "a::b.d", "plain.d"]
    filesystem = fsspec.filesystem("file" if root.startswith("/") else "memory")
    filesystem.makedirs(folder.removeprefix("memory://"), exist_ok=True)
    for name in names:
        filesystem.pipe_file(f"{folder.removeprefix('memory://')}/{name}", b"xx")
    found = find_files([form.format(folder)], DATA)
    if root.startswith("/"):
        assert [file.address for file in found.files] == [f"{folder}/{name}" for name in names]
        return
    assert [file.address for file in found.files] == [f"{folder}/plain.d"]
    assert [file.address for file in found.unusable] == [f"{folder}/{n}" for n in names[:2]]
    assert all("mark of addresses" in file.fault for file in found.unusable)


@pytest.mark.parametrize("place", ["data::2", "data::2/*.d", "data::2/::x.d", "data::2/x.d"])
def test_a_local_folder_may_be_called_as_a_chain(tmp_path: Path, place: str) -> None:
    folder = Folder(str(tmp_path / "data::2"))
    for name in ("x.d", "::x.d"):
        with folder.create(name) as file:
            file.write(b"xxx")
        assert (folder.size(name), folder.is_file(name)) == (3, True)
    found = find_files([str(tmp_path / place)], DATA)
    assert {Path(file.address).name for file in found.files} == (
        {"x.d", "::x.d"} if not place.endswith("x.d") else {Path(place).name}
    )


@pytest.mark.parametrize(
    "address", ["memory://a::b.d", "memory://a::/b.d", "http://a.example/x::y"]
)
def test_an_address_that_is_no_chain_is_refused(address: str) -> None:
    with pytest.raises(UserError, match=r"cannot be chained with '::'") as refusal:
        resolve(address)
    assert str(refusal.value).startswith(address)


ROOMS: list[Callable[[str], object]] = [
    lambda given: find([given]),
    lambda given: find_sources([given]),
    lambda given: find_files([given], DUMPS),
    lambda given: find_shards(ShardsConfig((given,))),
]


@pytest.mark.parametrize("room", ROOMS)
def test_every_room_finds_alike(tmp_path: Path, room: Callable[[str], Found]) -> None:
    with pytest.raises(UserError, match=r"^there is no file or folder .*/nowhere$"):
        room(str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match=r"^no file or folder matches .*/\*\.none$"):
        room(str(tmp_path / "*.none"))


READERS: list[tuple[str, Callable[[str], object]]] = [
    ("file", read_text),
    ("file", read_card),
    ("blocklist", read_blocklist),
    ("configuration file", read_toml),
    ("metadata file", load_metadata),
]


@pytest.mark.parametrize(("what", "read"), READERS)
def test_every_file_that_is_named_is_opened_alike(
    root: str, what: str, read: Callable[[str], object]
) -> None:
    with pytest.raises(UserError, match=rf"^there is no {what} {root}/nowhere"):
        read(f"{root}/nowhere")


# Metadata may be a folder, with a file for each language.
@pytest.mark.parametrize(("what", "read"), READERS[:-1])
def test_a_folder_is_no_file(tmp_path: Path, what: str, read: Callable[[str], object]) -> None:
    with pytest.raises(UserError, match=rf"^{tmp_path} is a folder, no {what}"):
        read(str(tmp_path))


def test_class_names_may_lie_on_any_storage(root: str, tmp_path: Path) -> None:
    (tmp_path / "data2" / "0").mkdir(parents=True)
    with Folder(root).create("names.txt") as file:
        file.write("\ufeffcat\n".encode())
    assert class_texts(str(tmp_path / "data2"), f"{root}/names.txt").class_names == ("cat",)
