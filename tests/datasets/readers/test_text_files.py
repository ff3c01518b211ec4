import pytest

from dfssd.datasets.annotations import BrokenFile, ClassFile, DescriptionFile, LabelFile, OtherFile, SplitFile
from dfssd.datasets.readers.text_files import read_text

LABEL = "0 0.5 0.5 0.1 0.1\n"


def read(tmp_path, name, text, keypoints=None):
    file = tmp_path / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_text(file, keypoints)


@pytest.mark.parametrize(
    "name", ["p001.txt", "P001.TXT", "train.txt", "classes.txt", "license-plate.txt", "notice.txt"]
)
def test_rows_of_numbers_are_labels_whatever_the_file_is_called(tmp_path, name):
    found = read(tmp_path, name, "\ufeff" + LABEL + "1.0\t0.5 0.5 0.2 0.2\r\n\r\n")
    assert isinstance(found, LabelFile) and found.annotations[0].labels == (0, 1)


def test_an_empty_file_is_an_image_without_defects(tmp_path):
    found = read(tmp_path, "test.txt", "\n \n")
    assert isinstance(found, LabelFile) and found.annotations[0].labels == () and not found.annotations[0].problem


@pytest.mark.parametrize(
    ("text", "where", "problem"),
    [
        (LABEL + "\npit 0.5 0.5 0.1 0.1", ":3", "not all columns are numbers"),
        ("pit 0.5 0.5 0.1 0.1", ":1", "not all columns are numbers"),
        ("0 0.5 0.5 0.1", ":1", "4 columns, expected 5"),
        ("# from a tool\n" + LABEL, ":1", "not all columns"),
        ("10 20 40 50 3", ":1", "coordinates outside 0-1"),
        ("imagesource:GoogleEarth\ngsd:0.1\n1 2 3 2 3 4 1 4 plane 0", ":1", "header of DOTA"),
        ("1,1,912,484,97,109,0,7,1", ":1", "commas in the row"),
    ],
)
def test_rows_that_are_nearly_labels_are_problems(tmp_path, text, where, problem):
    found = read(tmp_path, "p001.txt", text)
    assert isinstance(found, LabelFile)
    assert found.annotations[0].place == where and found.annotations[0].problem.startswith(problem)


@pytest.mark.parametrize(
    ("name", "text", "names"),
    [
        ("classes.txt", "\ufeffpit \r\n oil spot\r\n\r\n", ("pit", "oil spot")),
        ("labels/train/Classes.txt", "0\n1\n", ("0", "1")),
        ("obj.names", "pit\nscratch", ("pit", "scratch")),
        ("coco.names", "pit", ("pit",)),
        ("labels.txt", "pit\nscratch", ("pit", "scratch")),
        ("predefined_classes.txt", "dog\npit", ("dog", "pit")),
        ("class.names", "pit", ("pit",)),
        ("class_names.txt", "pit", ("pit",)),
        ("_darknet.labels", "pit", ("pit",)),
        ("_classes.txt", "pit", ("pit",)),
        ("classes.txt", "0 pit\n1: oil spot\n", ("pit", "oil spot")),
        ("classes.txt", "3D pit\n1 mm", ("3D pit", "1 mm")),
        ("classes.txt", "亮斑\n暗斑\n", ("亮斑", "暗斑")),
    ],
)
def test_class_lists_are_known_by_their_names(tmp_path, name, text, names):
    found = read(tmp_path, name, text)
    assert isinstance(found, ClassFile) and found.names == names


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("亮斑\n暗斑\n".encode("gbk"), "is not UTF-8; save it as UTF-8"),
        ("pit\nscratch\n".encode("utf-16"), "is not UTF-8; save it as UTF-8"),
        ("pit\n\nscratch\n", "line 2 is blank, and the order of the lines gives the ids"),
        ("\npit\n", "line 1 is blank"),
        ("1 pit\n2 scratch\n", "its lines are numbered from 1"),
        ("pit\nscra\x1b[tch\n", "the name in line 2 is 'scra\\x1b[tch', which holds characters"),
    ],
)
def test_class_lists_that_leave_doubt_are_refused(tmp_path, text, problem):
    found = read(tmp_path, "classes.txt", text)
    assert isinstance(found, BrokenFile) and found.problem.startswith(problem)


def test_a_class_list_without_names_says_nothing(tmp_path):
    assert isinstance(read(tmp_path, "classes.txt", "\n"), OtherFile)


PATHS = "data/obj_train_data/p 1.png\ndata/obj_train_data/p2.PNG\n"


@pytest.mark.parametrize(
    ("name", "text", "split", "images"),
    [
        ("train.txt", PATHS, "train", ("data/obj_train_data/p 1.png", "data/obj_train_data/p2.PNG")),
        ("valid.txt", "\ufeffimages\\val\\a.png\r\n\r\n.\\b.jpg\r\n", "val", ("images/val/a.png", "b.jpg")),
        ("ImageSets/Main/val.txt", "000005\n000007\n", "val", ("000005", "000007")),
        ("validation.txt", "p1\np2", "val", ("p1", "p2")),
        ("test.txt", "oil spots1\noil spots 2\n", "test", ("oil spots1", "oil spots 2")),
        ("train2017.txt", "a.png", "train", ("a.png",)),
        ("2007_train.txt", "000005", "train", ("000005",)),
        ("train_labeled.txt", "/data/a.png", "train", ("/data/a.png",)),
        ("train_unlabeled.txt", "/data/a.png", "unlabeled", ("/data/a.png",)),
        ("unlabelled.txt", "C:\\data\\a.png", "unlabeled", ("C:/data/a.png",)),
    ],
)
def test_lists_of_images_state_a_split(tmp_path, name, text, split, images):
    found = read(tmp_path, name, text)
    assert isinstance(found, SplitFile) and (found.split, found.images) == (split, images)


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("README.txt", "Rows such as 0 0.5 0.5 0.1 0.1\n0 0.5 0.5 0.1 0.1", "text for people"),
        ("README.roboflow.txt", b"\xff\xfe", "text for people (and not UTF-8)"),
        ("requirements.txt", "numpy", "text for people"),
        ("notes.txt", "The plates of line 3.\nTaken on 3 May 2024.", "text that is neither labels nor a list"),
        ("notes.txt", "Öl".encode("latin-1"), "text that is neither labels nor a list (and not UTF-8)"),
        ("test.txt", "This is a test.", "text that is neither labels nor a list"),
        ("train_log.txt", "epoch 1 done", "text that is neither labels nor a list"),
        ("all.txt", PATHS, "list of images of no split"),
        ("stems.txt", "000005\n000007\n", "text that is neither labels nor a list"),
        ("trainval.txt", "000005\n000007\n", "list of images of train and val together"),
        ("train_val.txt", PATHS, "list of images of train and val together"),
        ("ImageSets/Main/pit_train.txt", "000005 -1\n000007  1\n", "list of images with a class each"),
        ("train.txt", "a/p1.png 3\na/p2.png 0\n", "list of images with a class each"),
        ("ImageSets/Layout/train.txt", "000005\n", "list of images for another task"),
        ("test.txt", "g/1.jpg g_not/1.txt\ng/2.jpg g_not/2.txt", "list of images with a label file each"),
    ],
)  # fmt: skip
def test_other_texts_are_left_out_with_a_reason(tmp_path, name, text, reason):
    found = read(tmp_path, name, text)
    assert isinstance(found, OtherFile) and found.reason == reason


def test_stems_that_end_in_a_number_are_no_classes(tmp_path):
    found = read(tmp_path, "train.txt", "plate 0\nplate 1\n")
    assert isinstance(found, SplitFile) and found.images == ("plate 0", "plate 1")


ENCODING = "is not UTF-8; save it as UTF-8"


def test_lists_in_other_encodings_are_refused(tmp_path):
    found = read(tmp_path, "train.txt", "images/Öl.png".encode("latin-1"))
    assert isinstance(found, BrokenFile) and found.problem == ENCODING


def test_labels_that_cannot_be_read_are_a_problem_of_their_image(tmp_path):
    found = read(tmp_path, "p001.txt", LABEL.encode("utf-16"))
    assert isinstance(found, LabelFile) and found.annotations[0].problem == ENCODING
    found = read(tmp_path, "p001.txt", bytes(120))
    assert isinstance(found, LabelFile) and found.annotations[0].problem.startswith("holds nothing but zero bytes")


@pytest.mark.parametrize("name", ["classes.txt", "train.txt"])
def test_lists_of_zero_bytes_are_refused(tmp_path, name):
    found = read(tmp_path, name, bytes(120))
    assert isinstance(found, BrokenFile) and found.problem.startswith("holds nothing but zero bytes")


def test_lists_of_images_with_their_boxes_are_refused(tmp_path):
    found = read(tmp_path, "_annotations.txt", "a b.jpg 1,2,30,40,0 5,6,70,80,1\nc.jpg\n")
    assert isinstance(found, BrokenFile) and "Keras YOLO" in found.problem


def test_the_description_of_darknet_is_read(tmp_path):
    text = "classes = 2\ntrain = data\\train.txt\n# remark\nvalid=data/val.txt\nnames = data/obj.names\nbackup =\n"
    found = read(tmp_path, "obj.data", text)
    assert isinstance(found, DescriptionFile)
    assert found.entries == {
        "classes": "2",
        "train": "data/train.txt",
        "valid": "data/val.txt",
        "names": "data/obj.names",
        "backup": "",
    }
    assert isinstance(read(tmp_path, "options.txt", "lr = 1\ntrain = yes"), OtherFile)


def test_known_keypoints_are_passed_on(tmp_path):
    found = read(tmp_path, "p.txt", "0 0.5 0.5 0.1 0.1 0.5 0.5 2\n", (1, 3))
    assert isinstance(found, LabelFile) and found.annotations[0].boxes.tolist() == [[0.5, 0.5, 0.1, 0.1]]


def test_a_file_that_cannot_be_opened_is_told(tmp_path):
    found = read_text(tmp_path / "a.txt")
    assert isinstance(found, BrokenFile) and found.problem.startswith("cannot be read")
