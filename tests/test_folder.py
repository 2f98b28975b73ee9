"""A folder or a CSV of one's own becomes a benchmark that says exactly what it holds, or an error that says why not."""

import os
import unicodedata

import pytest
from PIL import Image

from ssr_lib.datasets.folder import list_pictures, read_labels, read_records
from ssr_lib.datasets.gldv2 import read_clean, read_ids
from ssr_lib.files import write_atomic

LINES = ("q1.jpg,tower,query", "q2.jpg,bridge,query", "1.jpg,tower,db", "2.jpg,bridge,db", "3.jpg,tower,db")
MORE = ("4.jpg,tower,distractor", "5.jpg,,distractor", "6.jpg,,db", "7.jpg,tower,train")
CLEAN = "landmark_id,images\n1,17660ef415d37059 92b6290d571448f6\n7,0123456789abcdef\n9,ff00000000000000\n"


def write_csv(folder, *lines, header="file,label,split", touch=True):
    path = folder / "labels.csv"
    path.write_text("\n".join((header, *lines)) + "\n", encoding="utf-8")
    if touch:
        for line in lines:
            (folder / line.split(",")[0]).touch()
    return path


def test_what_decodes_is_read_whatever_its_name_and_the_rest_is_counted_by_its_kind(tmp_path):
    formats = {"a.mpo": "MPO", "b.pbm": "PPM", "c.tga": "TGA", "no_extension": "PNG", "IMG_1.JPG.bak": "JPEG"}
    for name, format in formats.items():
        Image.new("1" if format == "PPM" else "RGB", (20, 20)).save(tmp_path / name, format)
    heic = b"\0\0\0\x18ftypheic\0\0\0\0"
    contents = {"h.hif": heic, "i.HEIC": heic, "sub/j.heic": heic, "k.raf": b"x", "l.nef": b"x", "m.txt": b"hello",
                "o": b"hello", ".hidden.jpg": b"x", ".cache/e.jpg": b"x"}  # fmt: skip
    for name, content in contents.items():
        write_atomic(tmp_path / name, content)
    files, skipped = list_pictures(tmp_path)
    assert files == sorted(formats)
    other = "not a picture that is read here"
    counts = {f"{other} but HEIC/HEIF (.hif)": 1, f"{other} but HEIC/HEIF (.heic)": 2, f"{other} (.txt)": 1}
    counts |= {"a camera's raw data (.raf)": 1, "a camera's raw data (.nef)": 1, f"{other} (no extension)": 1}
    assert skipped == counts


def test_links_are_followed_once(tmp_path):
    folder, elsewhere = tmp_path / "folder", tmp_path / "elsewhere"
    inside = ["a.JPEG", "b.jpg", "sub/c.png", "sub/deeper/d.tif"]
    for path in (*(folder / name for name in inside), elsewhere / "x.jpg"):
        write_atomic(path, "")
    (elsewhere / "back").symlink_to(folder)  # in a circle
    assert list_pictures(elsewhere)[0] == [*(f"back/{name}" for name in inside), "x.jpg"]
    (folder / "album").symlink_to(elsewhere)
    (folder / "again").symlink_to(folder / "sub")
    (folder / "a_link.jpg").symlink_to(folder / "b.jpg")
    (folder / "nowhere.jpg").symlink_to(folder / "none.jpg")
    os.link(folder / "b.jpg", folder / "hard.jpg")
    files, skipped = list_pictures(folder)
    assert files == sorted([*inside, "album/x.jpg"])
    another = "another name of a {} that is listed"
    assert skipped == {another.format("folder"): 2, another.format("picture"): 2, "a link to nothing": 1}


@pytest.mark.parametrize("name,words", [("", "left out: the file is empty"), ("none", "none"), ("x.heic", r"x\.heic")])
def test_empty_missing_and_no_folder_are_errors_that_name_it(tmp_path, name, words):
    (tmp_path / "x.heic").touch()
    with pytest.raises(OSError, match=words):
        list_pictures(tmp_path / name)


def test_positives_are_the_database_pictures_of_the_same_label(tmp_path):
    benchmark = read_labels(write_csv(tmp_path, *LINES, *MORE))
    assert benchmark.queries == ["q1.jpg", "q2.jpg"] and benchmark.groups == ["tower", "bridge"]
    assert benchmark.database == [f"{i}.jpg" for i in (1, 2, 3, 4, 5, 6)]
    assert [ids.tolist() for ids in benchmark.easy] == [[0, 2], [1]] and benchmark.query_ids == [-1, -1]
    own = read_labels(write_csv(tmp_path, *LINES, "q1.jpg,tower,db"))  # a query is not its own positive
    assert own.query_ids == [3, -1] and own.easy[0].tolist() == [0, 2]


def test_query_without_positives_is_named_or_kept_on_request(tmp_path):
    path = write_csv(tmp_path, *LINES, "q3.jpg,castle,query")
    with pytest.raises(ValueError, match=r"has the label of 1 queries \(q3\.jpg: 'castle'\)"):
        read_labels(path)
    assert [len(ids) for ids in read_labels(path, on_lonely="keep").easy] == [2, 1, 0]
    with pytest.raises(ValueError, match="castle"):  # nothing but such queries is an error in any case
        read_labels(write_csv(tmp_path, "q3.jpg,castle,query", "1.jpg,tower,db"), on_lonely="keep")


def test_without_splits_every_picture_with_a_partner_asks_for_the_others(tmp_path):
    lines = ("a.jpg,tower", "b.jpg,bridge", "c.jpg,tower", "d.jpg,tower", "e.jpg,castle", "f.jpg,")
    benchmark = read_labels(write_csv(tmp_path, *lines, header="file,label"))
    assert benchmark.database == [f"{letter}.jpg" for letter in "abcdef"]
    assert benchmark.queries == ["a.jpg", "c.jpg", "d.jpg"] and benchmark.query_ids == [0, 2, 3]
    assert [ids.tolist() for ids in benchmark.easy] == [[2, 3], [0, 3], [0, 2]]
    with pytest.raises(ValueError, match=r"0 queries, 4 database pictures; .* a label that two pictures share"):
        read_labels(write_csv(tmp_path, "a.jpg,1", "b.jpg,2", "c.jpg,", "d.jpg,", header="file,label"))


@pytest.mark.parametrize("place,said", [("images", False), ("elsewhere", True)])
def test_pictures_may_lie_in_images_or_where_one_says_and_missing_ones_are_named(tmp_path, place, said):
    path, images = write_csv(tmp_path, *LINES, touch=False), tmp_path / place
    for name in ("q1.jpg", "1.jpg", "2.jpg"):
        write_atomic(images / name, "")
    with pytest.raises(FileNotFoundError, match=rf"2 of 5 pictures \(q2\.jpg, 3\.jpg\) .* are not in .*{place};"):
        read_labels(path, images if said else None)
    (images / "q2.jpg").touch()
    (images / "3.jpg").touch()
    assert read_labels(path, images if said else None).root == images


@pytest.mark.parametrize("other", ["sub/../1.jpg", "{}/1.jpg", "link.jpg", "hard.jpg", "linked/1.jpg"])
@pytest.mark.parametrize("split", ["db", "query"])
def test_two_rows_that_are_one_file_are_refused(tmp_path, other, split):
    write_csv(tmp_path, *LINES)
    (tmp_path / "sub").mkdir()
    (tmp_path / "link.jpg").symlink_to("1.jpg")
    os.link(tmp_path / "1.jpg", tmp_path / "hard.jpg")
    (tmp_path / "linked").symlink_to(tmp_path)
    other = other.format(tmp_path)
    with pytest.raises(ValueError, match=rf"labels\.csv: 1\.jpg and {other} are one file"):
        read_labels(write_csv(tmp_path, *LINES, f"{other},tower,{split}", touch=False))


@pytest.mark.parametrize("table,disk", [("NFC", "NFD"), ("NFD", "NFC")])
def test_names_and_labels_with_accents_are_found_composed_or_not(tmp_path, table, disk):
    there, lines = [unicodedata.normalize(disk, name) for name in ("é.jpg", "ü.jpg")], []
    for name, form in zip(there, ("NFC", "NFD"), strict=True):
        (tmp_path / name).touch()
        lines.append(f"{unicodedata.normalize(table, name)},{unicodedata.normalize(form, 'tür')}")
    benchmark = read_labels(write_csv(tmp_path, *lines, header="file,label", touch=False))
    assert list(benchmark.queries) == there and [ids.tolist() for ids in benchmark.easy] == [[1], [0]]
    again = write_csv(tmp_path, lines[0], unicodedata.normalize(disk, lines[0]), header="file,label", touch=False)
    with pytest.raises(ValueError, match="already listed in line 2"):
        read_labels(again)


@pytest.mark.parametrize("text,rows", [
    ('\ufeffFile;Label;Note\r\n"a; b.jpg";x;1\r\n\r\nc.jpg;ü;2\r\n', [(2, "a; b.jpg", "x"), (4, "c.jpg", "ü")]),
    ('file,label\n"a\nb.jpg",1\n"c\u2028d\x0be.jpg",1\nf.jpg,2\n',
     [(2, "a\nb.jpg", "1"), (4, "c\u2028d\x0be.jpg", "1"), (5, "f.jpg", "2")]),
    *(("".join(line.replace("|", mark) + end for line in ("sep=|", "file|label", "a.jpg|1", 'b.jpg|"1,2"')),
       [(3, "a.jpg", "1"), (4, "b.jpg", "1,2")]) for mark, end in ((",", "\n"), (";", "\r\n"), ("\t", "\r"), ("|", "\n"))),
])  # fmt: skip
def test_marks_line_ends_and_separators_of_every_kind_are_read(tmp_path, text, rows):
    (tmp_path / "mine.csv").write_bytes(text.encode())
    found = read_records(tmp_path / "mine.csv", ["file", "label"])
    assert [(line, record["file"], record["label"]) for line, record in found] == rows


@pytest.mark.parametrize("content,message", [
    (b'file,label\na.jpg,1\n"b.jpg,1\nc.jpg,2\n', ", from line 3 on: unexpected end of data; is .* every quotation mark closed"),
    (b"file,label\na.jpg,1\n" + b"b" * 140_000, ", line 3: 1 values for 2 columns"),
    (b"file,label\n" + b"b" * 140_000 + b",1", ", line 2: 'b+'… of 140,000 characters is no file name"),
    (b"File,file ,label\na.jpg,b.jpg,2\n", ": columns file, label are wanted, each once; found 'File, file, label'"),
    (b"", " has 0 queries, 0 database pictures"),
    (b"file,label\n\xff\xfe.jpg,1\n", ", from line 1 on: .* byte 0xff in position 11: .*; is it a CSV in UTF-8"),
    (b"file,label,split\na.jpg,1,test\n", ", line 2: split is 'test'; one of query, db, distractor, train"),
    (b"file,label\na.jpg,1\nb.jpg,1\na.jpg,2\n", r", line 4: a\.jpg was already listed in line 2"),
])  # fmt: skip
def test_bad_csv_is_an_error_with_its_line(tmp_path, content, message):
    (tmp_path / "bad.csv").write_bytes(content)
    with pytest.raises(ValueError, match=rf"bad\.csv{message}"):
        read_labels(tmp_path / "bad.csv")


def test_every_picture_gets_its_landmark_and_its_place_and_landmarks_can_be_left_out(tmp_path):
    table, overlap = tmp_path / "train_clean.csv", tmp_path / "overlap.txt"
    table.write_text(CLEAN)
    files, labels = read_clean(table)
    assert files[0] == "1/7/6/17660ef415d37059.jpg" and labels.tolist() == [1, 1, 7, 9]
    overlap.write_text("# in Paris\n1\n\n9\n")
    files, labels = read_clean(table, leave_out=read_ids(overlap))
    assert labels.tolist() == [7] and files == ["0/1/2/0123456789abcdef.jpg"]
    with pytest.raises(ValueError, match="no landmark 8 to leave out"):
        read_clean(table, leave_out=[1, 8])
    table.write_text("landmark_id,images\n5," + " ".join(f"{i:016x}" for i in range(12000)))
    assert len(read_clean(table)[0]) == 12000
    overlap.write_text("1\nPantheon\n")
    with pytest.raises(ValueError, match=r"overlap\.txt.*Pantheon"):
        read_ids(overlap)


@pytest.mark.parametrize("row", ["x,17660ef415d37059", "1,ab", "1,../../../etc abc", '1,"ab'])
def test_rows_that_are_no_landmarks_are_refused(tmp_path, row):
    (tmp_path / "train.csv").write_text(f"{CLEAN}{row}\n")
    with pytest.raises(ValueError, match=r"train\.csv, (from )?line 5( on)?: "):
        read_clean(tmp_path / "train.csv")
