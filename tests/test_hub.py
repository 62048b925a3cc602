"""Downloads from the hub and uploads to it, by its real client against a server of its protocol."""

import shutil
from collections import namedtuple

import pytest
from hub_server import TOKEN

from rilbench import hub as product
from rilbench.errors import UserError


def data_set(hub, name="lab/charts", licence="cc-by-4.0"):
    folder = hub.add(name, license=licence)
    (folder / "data").mkdir()
    for i in range(2):
        (folder / "data" / f"train-{i}.parquet").write_bytes(bytes([i]) * 3_000_000)
    (folder / "data" / "test-0.parquet").write_bytes(b"test")
    return name


def test_what_is_asked_for_is_downloaded_once(hub):
    name = data_set(hub)
    found = product.download_dataset(name, "main", ["data/train-*"])
    assert [file.name for file in found.files] == ["train-0.parquet", "train-1.parquet"]
    assert all(file.stat().st_size == 3_000_000 for file in found.files)
    assert found.revision == hub.commit(f"datasets/{name}")
    assert found.license == "cc-by-4.0"
    hub.asked.clear()
    assert product.download_dataset(name, found.revision, ["data/train-*"]) == found
    assert not [line for line in hub.asked if line.startswith("GET") and "resolve" in line]


def test_a_file_that_was_cut_goes_on(hub):
    name = data_set(hub)
    hub.break_after = 1_000_000
    found = product.download_dataset(name, "main", ["data/train-0*"])
    (file,) = found.files
    assert file.read_bytes() == bytes(3_000_000)


def test_what_the_hub_refuses_is_one_line(hub, monkeypatch):
    name = data_set(hub)
    hub.gated.add(f"datasets/{name}")
    with pytest.raises(UserError, match=r"is gated; accept its terms .* HF_TOKEN"):
        product.download_dataset(name, "main", ["*"])
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert product.download_dataset(name, "main", ["data/test*"]).license == "cc-by-4.0"
    with pytest.raises(UserError, match="has no lab/chart, or it is private"):
        product.download_dataset("lab/chart", "main", ["*"])
    with pytest.raises(UserError, match="lab/charts has no revision v2"):
        product.download_dataset(name, "v2", ["*"])
    with pytest.raises(UserError, match=r"has no file like dev-\*; it has data/test-0.parquet"):
        product.download_dataset(name, "main", ["dev-*"])
    with pytest.raises(UserError, match="is no name on the hub"):
        product.download_dataset("lab/charts/more", "main", ["*"])


def test_a_full_disk_is_one_line(hub, monkeypatch):
    name = data_set(hub)
    usage = namedtuple("usage", "total used free")
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "disk_usage", lambda _: usage(0, 0, 10**6))
        with pytest.raises(UserError, match=r"needs 0.0 GB and .* set HF_HOME to another disk"):
            product.download_dataset(name, "main", ["data/*"])


@pytest.mark.integration  # the client tries for half a minute
def test_a_silent_hub_is_one_line(hub):
    name = data_set(hub)
    hub.server.shutdown()
    hub.server.server_close()
    with pytest.raises(UserError, match="the hub did not answer for lab/charts"):
        product.download_dataset(name, "main", ["data/*"])


def test_a_folder_is_published(hub, tmp_path, monkeypatch):
    folder = tmp_path / "model"
    (folder / "deep").mkdir(parents=True)
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# A model\n")
    (folder / "deep" / "weights.bin").write_bytes(b"w" * 5_000)
    with pytest.raises(UserError, match="refuses your token for me/model"):
        product.upload_folder(folder, "me/model", "model", "first", private=True)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    url = product.upload_folder(folder, "me/model", "model", "first", private=True)
    assert url == f"{hub.url}/me/model"
    stored = hub.repos["models/me/model"]
    assert (stored / "deep" / "weights.bin").read_bytes() == b"w" * 5_000
    assert "# A model" in (stored / "README.md").read_text()
    (folder / "README.md").write_text("new\n")
    product.upload_folder(folder, "me/model", "model", "second", private=True)
    assert (stored / "README.md").read_text() == "new\n"
