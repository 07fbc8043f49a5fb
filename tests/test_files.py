"""What yolov10_dysample/files.py promises to whoever writes, however many write at once."""

import os
import threading

import pytest

from yolov10_dysample.files import write_whole


def test_threads_that_write_one_file_leave_what_one_of_them_wrote(tmp_path):
    file, failed = tmp_path / "note.txt", []

    def write(letter):
        try:
            for _ in range(100):
                write_whole(file, letter * 1000)
        except OSError as error:
            failed.append(error)

    threads = [threading.Thread(target=write, args=(letter,)) for letter in (b"a", b"b", b"c", b"d")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    content = file.read_bytes()
    assert content == content[:1] * 1000
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.skipif(os.name == "nt", reason="links need a right that few have there, and there is no such mode")
def test_a_link_stays_one_and_what_only_its_owner_reads_stays_so(tmp_path):
    file, link = tmp_path / "secret.txt", tmp_path / "link.txt"
    file.write_text("old")
    file.chmod(0o600)
    link.symlink_to(file)
    write_whole(link, b"new")
    assert link.is_symlink()
    assert file.read_text() == "new"
    assert file.stat().st_mode & 0o777 == 0o600
