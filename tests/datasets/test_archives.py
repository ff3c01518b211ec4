import stat
import zipfile

import pytest

from dfssd.datasets.archives import unpack, zip_fingerprint
from dfssd.errors import UserError
from tests.datasets.material import cr7, zipped


def test_members_arrive_with_spaces_and_folders(tmp_path):
    file = zipped(cr7(tmp_path / "in", 1), tmp_path / "a.zip")
    unpack(file, tmp_path / "out")
    assert (tmp_path / "out" / "lengzha" / "image" / "oil spots1.jpg").is_file()


@pytest.mark.parametrize("name", ["../evil.txt", "a/../../evil.txt", "/evil.txt", "C:/evil.txt", "..\\evil.txt"])
def test_a_member_that_escapes_stops_everything(tmp_path, name):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("good.txt", "x")
        archive.writestr(name, "x")
    with pytest.raises(UserError, match="outside the target folder"):
        unpack(tmp_path / "a.zip", tmp_path / "box" / "out")
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["a.zip"]


def test_a_link_is_rejected(tmp_path):
    link = zipfile.ZipInfo("link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(UserError, match="outside the target folder"):
        unpack(tmp_path / "a.zip", tmp_path / "out")


@pytest.mark.parametrize("content", [b"", b"this is no zip file", b"PK\x03\x04 cut off"])
def test_a_file_that_is_no_zip_is_reported(tmp_path, content):
    (tmp_path / "a.zip").write_bytes(content)
    for function in (zip_fingerprint, lambda path: unpack(path, tmp_path / "out")):
        with pytest.raises(UserError, match=r"a\.zip is not a zip file"):
            function(tmp_path / "a.zip")


def test_a_damaged_member_is_reported(tmp_path):
    file = zipped(cr7(tmp_path / "in", 1), tmp_path / "a.zip")
    content = bytearray(file.read_bytes())
    content[200:260] = bytes(60)
    file.write_bytes(content)
    with pytest.raises(UserError, match=r"a\.zip is damaged at 'lengzha/image/"):
        unpack(file, tmp_path / "out")


def test_an_encrypted_member_is_reported(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.txt", "x")
    content = bytearray((tmp_path / "a.zip").read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(signature) + offset] |= 1
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(UserError, match="encrypted"):
        unpack(tmp_path / "a.zip", tmp_path / "out")


def test_the_fingerprint_is_of_the_content_not_of_the_file(tmp_path):
    folder = cr7(tmp_path / "in", 1)
    first = zip_fingerprint(zipped(folder, tmp_path / "a.zip"))
    assert first == zip_fingerprint(zipped(folder, tmp_path / "b.zip"))
    (folder / "lengzha" / "label" / "pits1.txt").write_text("3 0.4 0.4 0.1 0.1")
    assert first != zip_fingerprint(zipped(folder, tmp_path / "c.zip"))
