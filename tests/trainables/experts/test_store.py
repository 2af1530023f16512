"""The expert store: files are read back bit for bit; damaged files are named in the message and never used."""

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.support.experts import IDENTITY, NETWORK, expert_identity, random_snapshots
from trainables.errors import ExpertFileError
from trainables.experts.store import TrajectoryStore
from trainables.networks.convnet import ConvNet
from trainables.storage.atomic import write_atomically


@pytest.fixture
def store(tmp_path: Path) -> TrajectoryStore:
    return TrajectoryStore(tmp_path, IDENTITY)


def velocity_of(store: TrajectoryStore, expert: int) -> Tensor:
    velocity = store.load(expert).velocity
    assert velocity is not None
    return velocity


@pytest.fixture
def filled(store: TrajectoryStore) -> TrajectoryStore:
    """A store with experts 0 and 1 of four epochs."""
    for expert in (0, 1):
        store.record({expert: store.write(expert, random_snapshots(5, expert), [0.1 * n for n in range(4)])})
    return store


class TestRoundTrip:
    def test_every_bit_comes_back(self, store: TrajectoryStore) -> None:
        special = torch.tensor([0.0, -0.0, 1e-45, -3.4e38, 1 / 3, float("inf")]).repeat(NETWORK.parameters)
        snapshots = [*random_snapshots(3), special[: NETWORK.parameters]]
        store.record({7: store.write(7, snapshots, [0.3, 0.2, 0.1])})
        opened, stored = store.open([7], 3), store.load(7)
        assert (stored.losses, stored.velocity) == ([0.3, 0.2, 0.1], None)
        assert len(stored.snapshots) == 4
        for epoch, snapshot in enumerate(snapshots):
            for read_back in (opened.snapshot(0, epoch), stored.snapshots[epoch]):
                assert torch.equal(read_back.view(torch.int32), snapshot.view(torch.int32))

    def test_experts_come_in_the_order_asked_for(self, filled: TrajectoryStore) -> None:
        opened = filled.open([1, 0], 2)
        assert len(opened) == 2
        assert torch.equal(opened.snapshot(0, 2), random_snapshots(5, 1)[2])
        assert torch.equal(opened.snapshot(1, 2), random_snapshots(5, 0)[2])

    def test_the_manifest_says_what_and_how_much(self, filled: TrajectoryStore) -> None:
        manifest = json.loads(filled.manifest_path.read_text())
        assert manifest["identity"] == json.loads(json.dumps(IDENTITY.record()))
        assert manifest["address"] == filled.address == filled.folder.name
        assert manifest["layout"] == [[name, list(shape)] for name, shape in NETWORK.layout]
        entry = filled.read()[1]
        assert (entry.rows, entry.bytes, len(entry.losses)) == (5, filled.path(1).stat().st_size, 4)
        assert entry.sha256 == hashlib.sha256(filled.path(1).read_bytes()).hexdigest()

    def test_the_file_is_plain_arrow_with_a_row_an_epoch(self, filled: TrajectoryStore) -> None:
        table = pa.ipc.open_file(pa.memory_map(str(filled.path(0)))).read_all()
        assert table.schema.field("parameters").type == pa.list_(pa.float32(), NETWORK.parameters)
        assert np.array_equal(np.stack(table.column("parameters").to_pylist()), torch.stack(random_snapshots(5, 0)))


class TestMomentumBuffer:
    """It is stored with the last epoch, and code that reads rows does not see it."""

    VELOCITY = torch.tensor([0.0, -0.0, 1e-45, -3.4e38, 1 / 3]).repeat(NETWORK.parameters)[: NETWORK.parameters]

    @pytest.fixture
    def moving(self, store: TrajectoryStore) -> TrajectoryStore:
        store.record({0: store.write(0, random_snapshots(4), [0.3, 0.2, 0.1], self.VELOCITY)})
        return store

    def damaged(self, store: TrajectoryStore, expert: int = 0) -> None:
        """Change a character of the buffer."""
        content = bytearray(store.path(expert).read_bytes())
        place = content.index(base64.b64encode(self.VELOCITY.numpy().tobytes()))
        content[place + 7] = ord("B" if content[place + 7] == ord("A") else "A")
        store.path(expert).write_bytes(content)

    def test_every_bit_comes_back_and_may_be_written_to(self, moving: TrajectoryStore) -> None:
        velocity = velocity_of(moving, 0)
        assert torch.equal(velocity.view(torch.int32), self.VELOCITY.view(torch.int32))
        velocity.zero_()
        assert torch.equal(velocity_of(moving, 0), self.VELOCITY)

    def test_readers_of_rows_find_the_snapshots_alone(self, moving: TrajectoryStore) -> None:
        table = pa.ipc.open_file(pa.memory_map(str(moving.path(0)))).read_all()
        assert table.column_names == ["parameters"]
        assert np.array_equal(np.stack(table.column("parameters").to_pylist()), torch.stack(random_snapshots(4)))
        opened = moving.open([0], 3)
        assert all(torch.equal(opened.snapshot(0, n), one) for n, one in enumerate(random_snapshots(4)))
        assert moving.read()[0].rows == 4

    def test_a_longer_file_has_the_later_buffer(self, moving: TrajectoryStore) -> None:
        moving.record({0: moving.write(0, random_snapshots(6), [0.0] * 5, -self.VELOCITY)})
        assert torch.equal(velocity_of(moving, 0), -self.VELOCITY)

    def test_a_damaged_one_is_named_and_never_used(self, moving: TrajectoryStore) -> None:
        self.damaged(moving)
        assert moving.corrupt([0]) == {0: "its SHA-256 is not the one in its manifest"}
        with pytest.raises(ExpertFileError, match=r"momentum buffer in .*expert-0000\.arrow is damaged .*SHA-256"):
            moving.load(0)

    def test_another_networks_is_refused(self, moving: TrajectoryStore) -> None:
        moving.record({0: moving.write(0, random_snapshots(4), [0.0] * 3, self.VELOCITY[:5])})
        with pytest.raises(ExpertFileError, match=rf"has 20 bytes, a network's has {4 * NETWORK.parameters}"):
            moving.load(0)

    def test_an_unlisted_file_is_recovered_only_with_a_whole_one(self, moving: TrajectoryStore) -> None:
        moving.write(1, random_snapshots(3, 1), [0.2, 0.1], self.VELOCITY)
        moving.write(2, random_snapshots(3, 2), [0.2, 0.1], self.VELOCITY)
        self.damaged(moving, 2)
        moving.recover([0, 1, 2])
        assert sorted(moving.read()) == [0, 1]
        assert torch.equal(velocity_of(moving, 1), self.VELOCITY)


class TestAddress:
    def test_does_not_depend_on_the_root(self, tmp_path: Path, store: TrajectoryStore) -> None:
        assert TrajectoryStore(tmp_path / "elsewhere", IDENTITY).address == store.address

    def test_does_not_depend_on_the_horizon(self, filled: TrajectoryStore) -> None:
        before = filled.address
        filled.record({0: filled.write(0, random_snapshots(9, 0), [0.0] * 8)})
        assert filled.address == before

    def test_addressing_creates_nothing(self, store: TrajectoryStore, tmp_path: Path) -> None:
        assert store.read() == {}
        assert store.short([0, 1], 3) == [0, 1]
        assert not any(tmp_path.iterdir())


class TestMemoryMap:
    def test_a_snapshot_is_a_copy_that_may_be_written_to(self, filled: TrajectoryStore) -> None:
        before = filled.path(0).read_bytes()
        opened = filled.open([0], 4)
        assert opened.snapshot(0, 1).data_ptr() != opened.snapshot(0, 1).data_ptr()  # before a write that would crash
        opened.snapshot(0, 1).zero_()
        assert torch.equal(opened.snapshot(0, 1), random_snapshots(5, 0)[1])
        assert filled.path(0).read_bytes() == before

    def test_the_rows_are_views_on_the_map_and_not_copies(self, filled: TrajectoryStore) -> None:
        before = pa.total_allocated_bytes()
        rows = filled.open([0, 1], 4)._rows
        assert pa.total_allocated_bytes() - before < 4 * NETWORK.parameters
        assert not any(row.flags.writeable or row.flags.owndata for expert in rows for row in expert)

    def test_a_replaced_file_does_not_change_existing_maps(self, filled: TrajectoryStore) -> None:
        opened = filled.open([0], 4)
        filled.write(0, random_snapshots(5, "another"), [0.0] * 4)
        assert torch.equal(opened.snapshot(0, 3), random_snapshots(5, 0)[3])


class TestDamage:
    def test_nothing_is_wrong_with_whole_files(self, filled: TrajectoryStore) -> None:
        assert filled.corrupt([0, 1]) == {}

    def test_an_expert_that_the_manifest_does_not_list_is_short_and_not_corrupt(self, filled: TrajectoryStore) -> None:
        assert filled.corrupt([0, 1, 2]) == {}
        assert filled.short([0, 1, 2], 4) == [2]

    def test_a_missing_file(self, filled: TrajectoryStore) -> None:
        filled.path(1).unlink()
        assert filled.corrupt([0, 1]) == {1: "it is missing"}
        with pytest.raises(ExpertFileError, match=r"expert-0001\.arrow cannot be read"):
            filled.open([0, 1], 4)

    def test_a_file_cut_anywhere_is_found_and_not_opened(self, filled: TrajectoryStore) -> None:
        whole = filled.path(1).read_bytes()
        for size in range(0, len(whole), 37):
            filled.path(1).write_bytes(whole[:size])
            assert filled.corrupt([0, 1]) == {1: f"it has {size} bytes, its manifest says {len(whole)}"}
            with pytest.raises(ExpertFileError, match=r"expert-0001\.arrow cannot be read .* --retrain-corrupt"):
                filled.open([0, 1], 4)

    def test_any_flipped_bit_is_found(self, filled: TrajectoryStore) -> None:
        whole = bytearray(filled.path(0).read_bytes())
        for place in range(0, 8 * len(whole), 8 * 53 + 3):
            damaged = whole.copy()
            damaged[place // 8] ^= 1 << place % 8
            filled.path(0).write_bytes(damaged)
            assert filled.corrupt([0, 1]) == {0: "its SHA-256 is not the one in its manifest"}

    @pytest.mark.parametrize(("expert", "epochs", "have"), [(1, 5, "4"), (2, 4, "none")])
    def test_a_short_or_unlisted_expert_is_not_opened(
        self, filled: TrajectoryStore, expert: int, epochs: int, have: str
    ) -> None:
        with pytest.raises(ExpertFileError, match=rf"expert-000{expert}\.arrow needs {epochs} epochs and has {have}"):
            filled.open([expert], epochs)

    def test_a_file_with_fewer_snapshots_than_listed_is_not_opened(self, filled: TrajectoryStore) -> None:
        filled.write(0, random_snapshots(3), [0.0, 0.0])
        with pytest.raises(ExpertFileError, match=r"expert-0000\.arrow holds 3 snapshots, its manifest says 5"):
            filled.open([0], 4)


class TestManifest:
    def edit(self, store: TrajectoryStore, **fields: Any) -> None:
        manifest = json.loads(store.manifest_path.read_text())
        store.manifest_path.write_text(json.dumps({**manifest, **fields}))

    def test_another_version(self, filled: TrajectoryStore) -> None:
        self.edit(filled, version=2)
        with pytest.raises(ExpertFileError, match=r"manifest\.json has format version 2, this program reads 1"):
            filled.read()

    def test_another_version_whose_entries_have_other_fields(self, filled: TrajectoryStore) -> None:
        self.edit(filled, version=2, experts={"0": {"files": ["a", "b"]}})
        with pytest.raises(ExpertFileError, match=r"manifest\.json has format version 2, this program reads 1"):
            filled.read()

    def test_another_networks_layout(self, filled: TrajectoryStore) -> None:
        self.edit(filled, layout=[["conv0.weight", [1]]])
        for use in (filled.read, lambda: filled.open([0], 1), lambda: filled.record({})):
            with pytest.raises(ExpertFileError, match=r"manifest\.json describes another network"):
                use()

    @pytest.mark.parametrize(
        "text", ["", "{", "[]", "null", "{}", '{"version": 1, "layout": [], "experts": {"0": {}}}']
    )
    def test_garbage(self, filled: TrajectoryStore, text: str) -> None:
        filled.manifest_path.write_text(text)
        with pytest.raises(ExpertFileError, match=r"manifest\.json is not a manifest of experts"):
            filled.read()

    def test_bytes_that_are_no_text(self, filled: TrajectoryStore) -> None:
        filled.manifest_path.write_bytes(b"\xff\xfe\x00")
        with pytest.raises(ExpertFileError, match=r"manifest\.json is not a manifest of experts"):
            filled.read()

    def test_record_merges(self, filled: TrajectoryStore) -> None:
        first = filled.read()
        filled.record({2: filled.write(2, random_snapshots(2), [0.5])})
        assert filled.read() == {**first, 2: filled.read()[2]}
        assert filled.short(range(4), 1) == [3]
        assert filled.short(range(4), 2) == [2, 3]

    def test_a_longer_expert_replaces_a_shorter_one(self, filled: TrajectoryStore) -> None:
        longer = [*random_snapshots(5, 0), *random_snapshots(2, "more")]
        filled.record({0: filled.write(0, longer, [0.0] * 6)})
        assert filled.short([0, 1], 6) == [1]
        assert filled.corrupt([0, 1]) == {}
        opened = filled.open([0], 6)
        assert all(torch.equal(opened.snapshot(0, epoch), longer[epoch]) for epoch in range(7))

    @settings(max_examples=30, deadline=None)
    @given(st.binary(max_size=300))
    def test_any_bytes_are_read_or_refused_with_the_file_named(
        self, tmp_path_factory: pytest.TempPathFactory, content: bytes
    ) -> None:
        store = TrajectoryStore(tmp_path_factory.mktemp("store"), IDENTITY)
        store.folder.mkdir()
        store.manifest_path.write_bytes(content)
        with pytest.raises(ExpertFileError, match=r"manifest\.json"):
            store.read()


class TestAtomicWriting:
    def test_a_failing_writer_leaves_nothing_and_the_old_file_whole(self, tmp_path: Path) -> None:
        def fail(aside: Path) -> None:
            aside.write_text("half")
            raise RuntimeError("disk full")

        path = tmp_path / "file"
        for before in (None, "whole"):
            if before:
                path.write_text(before)
            with pytest.raises(RuntimeError, match="disk full"):
                write_atomically(path, fail)
            assert [entry.name for entry in tmp_path.iterdir()] == (["file"] if before else [])
        assert path.read_text() == "whole"

    def test_the_name_appears_only_when_the_file_is_whole(self, tmp_path: Path) -> None:
        path = tmp_path / "file"
        path.write_text("old")
        seen = []

        def write(aside: Path) -> None:
            aside.write_text("new")
            seen.append((aside.parent, path.read_text()))

        write_atomically(path, write)
        assert seen == [(tmp_path, "old")]
        assert path.read_text() == "new"
        assert len(list(tmp_path.iterdir())) == 1

    def test_snapshots_that_cannot_be_written_leave_the_expert_as_it_was(self, filled: TrajectoryStore) -> None:
        before = filled.path(0).read_bytes()
        ragged = [*random_snapshots(2), torch.zeros(3)]
        with pytest.raises(pa.ArrowInvalid):
            filled.write(0, ragged, [0.0, 0.0])
        assert filled.path(0).read_bytes() == before
        assert sorted(entry.name for entry in filled.folder.iterdir()) == [
            "expert-0000.arrow",
            "expert-0001.arrow",
            "manifest.json",
        ]


class TestRecovery:
    """A writer that dies between the file and the manifest loses nothing."""

    def longer(self, store: TrajectoryStore, expert: int = 0, epochs: int = 5) -> list[Tensor]:
        snapshots = [torch.full((store.network.parameters,), float(epoch)) for epoch in range(epochs + 1)]
        store.write(expert, snapshots, [1.0 / (1 + epoch) for epoch in range(epochs)])
        return snapshots

    def test_a_file_that_was_never_recorded_is_entered(self, filled: TrajectoryStore) -> None:
        expert = max(filled.read()) + 1
        snapshots = self.longer(filled, expert)
        assert filled.short([expert], 5) == [expert]
        filled.recover([expert])
        assert filled.short([expert], 5) == []
        assert torch.equal(filled.open([expert], 5).snapshot(0, 5), snapshots[5])

    def test_a_longer_file_is_not_called_corrupt_and_is_entered(self, filled: TrajectoryStore) -> None:
        self.longer(filled)
        assert filled.corrupt([0]) == {}
        filled.recover([0])
        assert filled.read()[0].rows == 6 and len(filled.read()[0].losses) == 5

    def test_a_damaged_one_is_neither_entered_nor_passed_over(self, filled: TrajectoryStore) -> None:
        self.longer(filled)
        content = bytearray(filled.path(0).read_bytes())
        content[content.index(np.full(3, 4, dtype=np.float32).tobytes())] ^= 1
        filled.path(0).write_bytes(content)
        before = filled.read()
        filled.recover([0])
        assert filled.read() == before
        assert list(filled.corrupt([0])) == [0]

    def test_what_killed_writers_left_aside_is_removed_and_nothing_else(self, filled: TrajectoryStore) -> None:
        others = filled.folder / ".expert-0001.arrow.ab.partial"
        for aside in (
            filled.folder / ".expert-0000.arrow.cd.partial",
            others,
            filled.folder / ".manifest.json.e.partial",
        ):
            aside.write_text("half")
        filled.recover([0])
        left = ["expert-0000.arrow", "expert-0001.arrow", "manifest.json"]
        assert sorted(entry.name for entry in filled.folder.iterdir()) == [others.name, *left]

    def test_a_file_that_grew_since_it_was_listed_is_loaded_with_its_own_losses_and_buffer(
        self, store: TrajectoryStore
    ) -> None:
        for epochs in (2, 4):
            velocity = torch.full((NETWORK.parameters,), float(epochs))
            entry = store.write(0, random_snapshots(epochs + 1), [0.5 / epochs] * epochs, velocity)
            if epochs == 2:
                store.record({0: entry})
        stored = store.load(0)
        assert (len(stored.snapshots), stored.losses) == (5, [0.125] * 4)
        assert stored.velocity is not None and torch.equal(stored.velocity, velocity)
        assert len(store.open([0], 2)) == 1

    def test_forgotten_experts_are_short_again_and_the_others_stay(self, filled: TrajectoryStore) -> None:
        filled.forget([1, 7])
        assert filled.short([0, 1], 4) == [1]
        filled.recover([0, 1])
        assert sorted(filled.read()) == [0]
        assert not filled.path(1).exists()


@pytest.mark.parametrize("epochs", [1, 20, 200])
@pytest.mark.parametrize("width", [2, 64])
@pytest.mark.parametrize("moving", [False, True])
def test_a_file_takes_nearly_what_it_may_take_at_most(tmp_path: Path, epochs: int, width: int, moving: bool) -> None:
    network = ConvNet(channels=3, image_size=8, classes=10, depth=1, width=width)
    rows = [torch.rand(network.parameters) for _ in range(epochs + 1)]
    store = TrajectoryStore(tmp_path, expert_identity(network))
    written = store.write(0, rows, [1 / 3] * epochs, rows[0] if moving else None)
    assert written.bytes <= store.most_bytes(epochs) <= 2 * written.bytes + 8192
