"""Downloads from a server of our own: whole, checked, never over a file; and without a network."""

import threading
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tensorgrad.data import shakespeare
from tensorgrad.data.fetch import Source, cache_folder, fetch
from tensorgrad.models.training.source import located

BODY = b"First Citizen:\nBefore we proceed any further, hear me speak.\n" * 2003


@pytest.fixture
def server():
    """A server whose every file is BODY, but /half, which breaks off."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(404 if self.path == "/none" else 200)
            self.send_header("Content-Length", str(len(BODY)))
            self.end_headers()
            self.wfile.write(BODY[: len(BODY) // 2] if self.path == "/half" else BODY)

        def log_message(self, *args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as here:
        thread = threading.Thread(target=here.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{here.server_port}"
        here.shutdown()
        thread.join()


def source(url, **wrong):
    return Source(**{"url": url, "size": len(BODY), "sha256": sha256(BODY).hexdigest(), **wrong})


def test_a_download_arrives_whole_and_once(server, tmp_path, capsys):
    file = tmp_path / "new" / "text.txt"
    assert fetch(source(f"{server}/input.txt"), file) == file
    assert file.read_bytes() == BODY
    assert "input.txt" in capsys.readouterr().err, "a bar"
    assert fetch(source(f"{server}/none"), file) == file, "what is there is not asked for again"
    assert [f.name for f in file.parent.iterdir()] == ["text.txt"]


@pytest.mark.parametrize(
    ("path", "wrong", "error", "sentence"),
    [
        ("/input.txt", {"sha256": "0" * 64}, ValueError, r"SHA-256 .* where 0{16}\.\.\. is exp"),
        ("/input.txt", {"size": 7}, ValueError, "bytes where 7 are expected; nothing was written"),
        ("/half", {}, ValueError, "bytes where .* are expected; nothing was written"),
        ("/none", {}, ConnectionError, "cannot download .*/none: not found; fetch it where there"),
    ],
)
def test_a_bad_download_writes_nothing(server, tmp_path, path, wrong, error, sentence):
    with pytest.raises(error, match=sentence):
        fetch(source(server + path, **wrong), tmp_path / "text.txt")
    assert not (tmp_path / "text.txt").exists()


def test_another_file_is_left_alone(tmp_path):
    file = tmp_path / "text.txt"
    file.write_bytes(b"mine")
    with pytest.raises(ValueError, match=r"text\.txt' has 4 bytes where .* move it away"):
        fetch(source("http://127.0.0.1:1/"), file)
    file.write_bytes(BODY[::-1])
    with pytest.raises(ValueError, match=r"text\.txt' has the SHA-256"):
        fetch(source("http://127.0.0.1:1/"), file)
    assert file.read_bytes() == BODY[::-1]


def test_without_a_network(tmp_path):
    with pytest.raises(ConnectionError, match=r"curl -o input\.txt .*--data input\.txt"):
        fetch(source("http://127.0.0.1:1/input.txt"), tmp_path / "text.txt")


def test_shakespeare_is_checked(tmp_path):
    file = tmp_path / "shakespeare.txt"
    file.write_bytes(BODY)
    with pytest.raises(ValueError, match="bytes where 1,115,394 are expected"):
        shakespeare(file)


def test_names_of_sources(tmp_path, monkeypatch):
    """F1.6: `--data shakespeare` is the source, unless there is a file of that name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert cache_folder() == tmp_path / "cache" / "tensorgrad"
    monkeypatch.setattr(
        "tensorgrad.models.training.source.fetch", lambda source, path: (source.size, path)
    )
    assert located("shakespeare") == (1_115_394, cache_folder() / "shakespeare.txt")
    assert located("names") == (228_145, cache_folder() / "names.txt")
    assert located("text.txt") == "text.txt" and located(None) is None
    (tmp_path / "shakespeare").write_text("mine")
    assert located("shakespeare") == "shakespeare"
