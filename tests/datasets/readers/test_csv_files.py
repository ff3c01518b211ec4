import numpy as np
import pytest

from dfssd.datasets.annotations import BrokenFile, ClassFile, LabelFile, OtherFile
from dfssd.datasets.readers.csv_files import read_csv

TENSORFLOW = "filename,width,height,class,xmin,ymin,xmax,ymax\n"


def read(tmp_path, text, name="labels.csv"):
    file = tmp_path / name
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_csv(file)


def annotations(tmp_path, text, name="labels.csv"):
    found = read(tmp_path, text, name)
    assert isinstance(found, LabelFile) and found.format == "csv" and found.names is None, found
    return found.annotations


def test_the_table_of_tensorflow(tmp_path):
    text = TENSORFLOW + "a.png,64,48,pit,1,2,30,40\nb.png,64,48,scratch,5,6,7,8\na.png,64,48,oil spot,0,0,64,48.5\n"
    first, second = annotations(tmp_path, text)
    assert (first.image, first.labels, first.size) == ("a.png", ("pit", "oil spot"), (64, 48))
    assert first.boxes.dtype == np.float64 and first.boxes.tolist() == [[1, 2, 30, 40], [0, 0, 64, 48.5]]
    assert first.place == ":2" and not first.normalized and second.place == ":3"
    assert (second.image, second.labels, second.boxes.tolist()) == ("b.png", ("scratch",), [[5, 6, 7, 8]])


@pytest.mark.parametrize(
    ("text", "image", "labels", "boxes", "normalized"),
    [
        (
            "Image Path;Label;X_Min;Y_Min;X_Max;Y_Max\nd\\a.png;pit;1,5;2;30,25;40\n",
            "d/a.png", ("pit",), [[1.5, 2, 30.25, 40]], False,
        ),
        ("image\tclass_id\tx1\ty1\tx2\ty2\na.png\t3\t1\t2\t30\t40\n", "a.png", (3,), [[1, 2, 30, 40]], False),
        ("sep=;\nimage_id;class;x0;y0;x1;y1\na;1.0;1;2;30;40\n", "a", (1,), [[1, 2, 30, 40]], False),
        ("\ufefffilename,class,left,top,w,h\r\na.png,pit,1,2,30,40\r\n", "a.png", ("pit",), [[1, 2, 31, 42]], False),
        ("filename,class,x_center,y_center,w,h\na.png,pit,20,20,10,30\n", "a.png", ("pit",), [[15, 5, 25, 35]], False),
        ("filename,class,xcenter,ycenter,w,h\na,pit,.5,.5,.1,.3\n", "a", ("pit",), [[0.5, 0.5, 0.1, 0.3]], True),
        (
            "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf,IsDepiction\n"
            "0a1b,xclick,/m/01g317,1,0.25,0.75,0.5,1,0,0,0,0\n0a1b,xclick,/m/01g317,1,0,1,0,1,0,0,1,0\n",
            "0a1b", ("/m/01g317",), [[0.5, 0.75, 0.5, 0.5]], True,
        ),
        (
            "label_name,bbox_x,bbox_y,bbox_width,bbox_height,image_name,image_width,image_height\n"
            "pit,1,2,30,40,a.png,64,48\n",
            "a.png", ("pit",), [[1, 2, 31, 42]], False,
        ),
        ("pit,1,2,30,40,a.png,64,48\n", "a.png", ("pit",), [[1, 2, 31, 42]], False),
        ("img/a b.jpg,1,2,30,40,pit\n", "img/a b.jpg", ("pit",), [[1, 2, 30, 40]], False),
        ("image_id,class_name,class_id,boxx1,boxy1,box_x2,box_y2\na,p,0,1,2,3,4\n", "a", ("p",), [[1, 2, 3, 4]], False),
    ],
)  # fmt: skip
def test_columns_are_known_by_names_or_the_form_of_rows(tmp_path, text, image, labels, boxes, normalized):
    (found,) = annotations(tmp_path, text)
    assert (found.image, found.labels, found.normalized, found.problem) == (image, labels, normalized, None)
    np.testing.assert_allclose(found.boxes, boxes, rtol=1e-12)


def test_groups_of_objects_are_left_out_and_noted(tmp_path):
    found = read(tmp_path, "filename,class,xmin,ymin,xmax,ymax,IsGroupOf\na.png,pit,1,2,3,4,1\na.png,pit,1,2,9,9,0\n")
    assert found.annotations[0].boxes.tolist() == [[1, 2, 9, 9]]
    assert found.notes == ("1 box around groups of objects left out",)


@pytest.mark.parametrize("row", ["b.jpg,,,,,", "b.jpg,nan,nan,nan,nan,nan"])
@pytest.mark.parametrize("header", ["", "path,x1,y1,x2,y2,class\n"])
def test_a_row_without_box_and_class_is_an_image_without_defects(tmp_path, row, header):
    found = read(tmp_path, f"{header}a.jpg,1,2,30,40,pit\n{row}\n")
    assert [(a.image, a.labels) for a in found.annotations] == [("a.jpg", ("pit",)), ("b.jpg", ())]
    assert not any(a.problem for a in found.annotations)
    assert found.notes == ("1 image without boxes: defect-free",)


def test_the_split_is_that_of_its_column(tmp_path):
    text = "filename,split,class,xmin,ymin,xmax,ymax\n" + "".join(
        f"{i}.png,{split},pit,1,2,3,4\n" for i, split in enumerate(("Train", "validation", "test", "", "line 3"))
    )
    assert [a.split for a in annotations(tmp_path, text)] == ["train", "val", "test", None, None]


def test_corner_or_middle_is_proven_by_the_boxes(tmp_path):
    head = "filename,image_width,image_height,label,x,y,w,h\n"
    corner = head + "a.png,64,48,pit,0,0,30,20\na.png,64,48,pit,2,3,30,20\na.png,64,48,pit,20,20,10,10\n"
    (found,) = annotations(tmp_path, corner)
    assert found.boxes.tolist() == [[0, 0, 30, 20], [2, 3, 32, 23], [20, 20, 30, 30]]
    middle = head + "a.png,64,48,pit,50,30,28,36\na.png,64,48,pit,48,28,32,40\na.png,64,48,pit,20,20,10,10\n"
    (found,) = annotations(tmp_path, middle)
    assert found.boxes.tolist() == [[36, 12, 64, 48], [32, 8, 64, 48], [15, 15, 25, 25]]
    for undecided in ("a.png,64,48,pit,20,20,10,10\n", "a.png,64,48,pit,0,0,30,20\na.png,64,48,pit,60,40,8,16\n"):
        found = read(tmp_path, head + undecided)
        assert isinstance(found, BrokenFile) and "a corner and a size, or a middle and a size" in found.problem


def test_a_column_with_all_four_numbers(tmp_path):
    head = "image_id,width,height,class,bbox\n"
    rows = 'a,64,48,pit,"[0.0, 2, 30, 20]"\na,64,48,pit,"[2, 20, 30, 20]"\na,64,48,pit,"(30, 20, 5, 6)"\n'
    (found,) = annotations(tmp_path, head + rows)
    assert found.boxes.tolist() == [[0, 2, 30, 22], [2, 20, 32, 40], [30, 20, 35, 26]]
    assert isinstance(read(tmp_path, head + 'a,64,48,pit,"[10, 10, 40, 30]"\n'), BrokenFile)


@pytest.mark.parametrize(
    ("row", "place", "problem"),
    [
        ("a.png,64,48,pit,1,2,x,40", ":3", "'x' is not a number"),
        ("a.png,64,48,pit,1,2,inf,40", ":3", "'inf' is not a number"),
        ("a.png,64,48,pit,1,2,,40", ":3", "the box has 3 numbers, expected 4"),
        ("a.png,64,48,pit,30,2,1,40", ":3", "box without area (x1 y1 x2 y2 = 30 2 1 40)"),
        ("a.png,64,48,pit,1,2,1,40", ":3", "box without area"),
        ("a.png,64,48,pit,0.1,0.2,0.5,0.5", ":3", "box of 0-1 among boxes in pixels"),
        ("a.png,64,48,,1,2,30,40", ":3", "the class is empty"),
        ("a.png,64,48,pit,,,,", ":3", "class 'pit' without a box; an image without defects has no class"),
        ("a.png,64,48,,,,,", ":3", "the image has rows with and without a box"),
        ("a.png,64,64,pit,1,2,30,40", ":3", "its rows state two sizes of the image ((64, 48) and (64, 64))"),
        ("a.png,64,x,pit,1,2,30,40", ":3", "the height is 'x', expected a number"),
        ("a.png,64,48,pit,1,2,30,40,50", ":3", "9 columns, the header has 8"),
    ],
)
def test_a_wrong_row_is_a_problem_of_its_image(tmp_path, row, place, problem):
    first, other = annotations(tmp_path, TENSORFLOW + f"a.png,64,48,pit,1,2,30,40\n{row}\nb.png,64,48,pit,1,2,30,40\n")
    assert first.place == place and first.problem.startswith(problem) and len(first.labels) == len(first.boxes) == 0
    assert other.problem is None and other.labels == ("pit",)


def test_wrong_ids_and_relative_boxes_are_problems(tmp_path):
    rows = "a.png,-1,0.1,0.1,0.2,0.2\nb.png,0,0.2,0.2,1.009,0.4\nc.png,0,.5,.5,.4,.6\n"
    first, second, third = annotations(tmp_path, "filename,class_id,xmin,ymin,xmax,ymax\n" + rows)
    assert first.problem == "class id -1 is not a whole number from 0 on"
    np.testing.assert_allclose(second.boxes, [[0.6, 0.3, 0.8, 0.2]], rtol=1e-12)  # cut at the border
    assert third.problem.startswith("box without area")


def test_ids_among_names_are_names(tmp_path):
    (found,) = annotations(tmp_path, "filename,class,xmin,ymin,xmax,ymax\na.png,1,1,2,3,4\na.png,pit,1,2,3,4\n")
    assert found.labels == ("1", "pit")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("ImageId,ClassId,EncodedPixels\na.jpg,1,100 20 164 20\n", "holds run lengths of masks (column 'EncodedP"),
        (f"ImageId,EncodedPixels\na.jpg,{'1 2 ' * 100_000}\n", "holds run lengths of masks"),
        ("filename,class,score,xmin,ymin,xmax,ymax\na.png,pit,0.9,1,2,3,4\n", "holds predictions and no"),
        ("image_id,width,height,bbox,source\na,1024,1024,\"[834.0, 222.0, 56.0, 36.0]\",x\n", "no column of the class"),
        ("class,xmin,ymin,xmax,ymax\npit,1,2,3,4\n", "no column of the image"),
        ("filename,class,label,xmin,ymin,xmax,ymax\na,b,c,1,2,3,4\n", "columns 'class' and 'label' may both be"),
        ("filename,class,x1,y1,x2,y2,x3,y3,x4,y4\na,b,1,2,3,4,5,6,7,8\n", "its columns (filename, class, x1,"),
        ("filename,class,xmin,ymin,xmin,ymax\na,b,1,2,3,4\n", "its columns"),
        ("a.jpg,1,2,30,40,pit\nb.jpg,30,40,10,10,pit\n", "line 2: x2 y2 is not right of and below x1 y1"),
        (TENSORFLOW + ",64,48,pit,1,2,30,40\n", "the image in line 2 is '', expected the path of an image"),
        (TENSORFLOW + f'"a.png,{"x" * 200_000}\n', "is not valid CSV (field larger than field limit"),
        (TENSORFLOW.encode() + "a.png,64,48,Öl,1,2,30,40\n".encode("latin-1"), "is not UTF-8; save it as UTF-8"),
        (TENSORFLOW.encode("utf-16"), "is not UTF-8; save it as UTF-8"),
        ("# Exported using VIA\n# CSV_HEADER = metadata_id,file_list,flags\n", "is a table of VIA 3"),
    ],
)  # fmt: skip
def test_tables_of_labels_that_are_not_certain_are_refused(tmp_path, text, problem):
    found = read(tmp_path, text)
    assert isinstance(found, BrokenFile) and found.problem.startswith(problem), found


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty table"),
        ("\n \n", "empty table"),
        ("order,customer,date\n1,2,3\n", "table without boxes of images (columns order, customer, date)"),
        ("epoch,train/box_loss,metrics/mAP50(B)\n1,2,3\n", "table without boxes of images"),
        ("filename,label\na.png,pit\n", "table without boxes (columns filename, label)"),
        ("a.png,3\nb.png,4\n", "table without boxes of images (columns a.png, 3)"),
        ("Größe,Menge\n1,2\n".encode("latin-1"), "table without boxes of images"),
        ("t,x,y,w,h\n1,2,3,4,5\n", "table without boxes of images"),
        ("just text", "table without boxes of images (columns just text)"),
    ],
)
def test_other_tables_are_none_of_our_business(tmp_path, text, reason):
    found = read(tmp_path, text)
    assert isinstance(found, OtherFile) and found.reason.startswith(reason)


def test_the_class_list_of_retinanet(tmp_path):
    found = read(tmp_path, "scratch,1\npit,0\n", "classes.csv")
    assert isinstance(found, ClassFile) and found.names == ("pit", "scratch")
    assert isinstance(read(tmp_path, "scratch,1\npit,2\n", "classes.csv"), OtherFile)
    assert isinstance(read(tmp_path, "scratch,1\npit,0\n", "stock.csv"), OtherFile)


VIA = "filename,file_size,file_attributes,region_count,region_id,region_shape_attributes,region_attributes\n"


@pytest.mark.parametrize("mark", ["", "#"])
def test_the_table_of_via(tmp_path, mark):
    text = mark + VIA + (
        'a.png,12,"{}",2,0,"{""name"":""rect"",""x"":1,""y"":2,""width"":30,""height"":40}","{""class"":""pit""}"\n'
        'a.png,12,"{}",2,1,"{""name"":""circle"",""cx"":20,""cy"":20,""r"":5}","{""class"":""dent""}"\n'
        'b.png,12,"{}",0,0,"{}","{}"\n'
    )  # fmt: skip
    found = read(tmp_path, text)
    assert isinstance(found, LabelFile) and found.format == "via"
    first, second = found.annotations
    assert first.labels == ("pit", "dent") and first.boxes.tolist() == [[1, 2, 31, 42], [15, 15, 25, 25]]
    assert (second.image, second.labels, second.problem) == ("b.png", (), None)
    broken = read(tmp_path, VIA + 'a.png,12,"{}",1,0,"{""name"":","{}"\n')
    assert isinstance(broken, BrokenFile) and broken.problem.startswith("line 2: a region is not valid JSON")


def test_a_file_that_cannot_be_opened_is_told(tmp_path):
    found = read_csv(tmp_path)
    assert isinstance(found, BrokenFile) and found.problem.startswith("cannot be read")
