"""Archives as they stream by: what is good is given out, what is damaged is never taken for whole."""

from __future__ import annotations

import bz2
import datetime as dt
import io
import json
import tarfile
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from esid.entities import killmail_body
from esid.entities.killmail_body import Body
from esid.errors import BadBody, BadField, DamagedArchive, NotFound, NotPermitted, SourceUnavailable, UsageError
from esid.feeds import json_stream, readers
from esid.feeds.archives import EVEREF, HASHES, ZKILLBOARD, Folder
from esid.feeds.hashes import check_hash, is_askable
from esid.feeds.links import killmail
from esid.feeds.readers import BadMember
from esid.feeds.tar import members
from tests.fake_feed import generate
from tests.fake_feed.publisher import archive, tar_of

DAY = dt.date(2021, 11, 29)
MAILS = generate(97_010_570, 6, DAY)
HASH = "0123456789abcdef0123456789abcdef01234567"


def tar() -> bytes:
    """An uncompressed archive of ours."""
    return bz2.decompress(archive(MAILS))


def test_a_whole_archive_is_given_out_whole() -> None:
    assert [name for name, _ in members(io.BytesIO(tar()))] == [f"killmails/{mail.id}.json" for mail in MAILS]
    found = list(readers.everef(io.BytesIO(archive(MAILS))))
    assert [one.id for one in found if isinstance(one, Body)] == [mail.id for mail in MAILS]
    assert [one.id for one in readers.everef(io.BytesIO(archive(MAILS)), skip=4) if isinstance(one, Body)] == [
        mail.id for mail in MAILS[4:]
    ]


def test_an_archive_cut_off_anywhere_is_damaged() -> None:
    whole = tar()
    # The end-of-archive mark is two empty blocks, of which the first tells; what follows it is padding.
    end = len(whole.rstrip(b"\0")) // 512 * 512 + 512
    for cut in [*range(0, end, 512), *range(1, end, 511)]:
        with pytest.raises(DamagedArchive, match="ends in the middle"):
            list(members(io.BytesIO(whole[:cut])))


def test_a_packed_archive_cut_off_anywhere_is_damaged() -> None:
    whole = archive(MAILS)
    for cut in range(0, len(whole), 97):
        with pytest.raises(DamagedArchive):
            list(readers.everef(io.BytesIO(whole[:cut])))


@pytest.mark.parametrize(
    "change",
    [{124: b"99999999999\0"}, {124: b"xxxxxxxxxxx\0"}, {148: b"0000000\0"}, {0: b"\xff"}, {124: b"77777777777\0"}],
    ids=str,
)
def test_a_head_that_is_none_is_damage(change: dict[int, bytes]) -> None:
    spoiled = bytearray(tar())
    for place, data in change.items():
        spoiled[place : place + len(data)] = data
    with pytest.raises(DamagedArchive):
        list(members(io.BytesIO(bytes(spoiled))))


def test_a_member_larger_than_any_killmail_is_damage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("esid.feeds.tar.LARGEST_KILLMAIL", 1000)
    with pytest.raises(DamagedArchive, match="a member is larger"):
        list(members(io.BytesIO(bz2.decompress(tar_of({"a": b"x" * 1001})))))


def repeated(member: tarfile.TarInfo, content: bytes, thousands: int) -> bytes:
    """A tar.bz2 of so many thousand equal members: each thousand is a stream of bzip2 of a few hundred bytes."""
    padding = bytes(-len(content) % 512)
    member.size = len(content)
    return bz2.compress((member.tobuf(tarfile.USTAR_FORMAT) + content + padding) * 1000) * thousands


def folder_member() -> tarfile.TarInfo:
    """An empty folder."""
    member = tarfile.TarInfo("folder/")
    member.type = tarfile.DIRTYPE
    return member


@pytest.mark.parametrize(
    "packed",
    [
        repeated(folder_member(), b"", 10),
        repeated(tarfile.TarInfo("a"), b"x" * 4000, 2),
        bz2.compress(b"x" * 512 * 10_000),
    ],
    ids=["folders", "members", "no archive"],
)
def test_an_archive_that_unpacks_without_end_is_damage(packed: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers, "LARGEST_FILE", 4 * 1024 * 1024)
    with pytest.raises(DamagedArchive, match=r"more than 4 MiB|head of a member"):
        list(readers.everef(io.BytesIO(packed)))


@pytest.mark.parametrize("name", ["x" * 100_000, "a\nb\x1b[2J\u202e"], ids=["long", "with signs"])
def test_the_name_of_what_is_refused_is_one_short_line(name: str) -> None:
    (refused,) = readers.zkillboard(io.BytesIO(json.dumps({name: 1}).encode()), {})
    assert isinstance(refused, BadMember)
    assert len(refused.name) <= 100
    assert refused.name.isprintable()


@pytest.mark.heavy
@pytest.mark.parametrize(
    "body",
    [b"[" * 1_000_000, b"[]", b"{", b'{"1":' + b"9" * 5_000_000 + b"}", b'{"1":' + b"[[]" + b",[]" * 2_000_000 + b"]}"],
    ids=lambda body: str(body[:10]),
)  # fmt: skip
def test_hashes_that_are_none_are_refused_without_a_look_at_all_of_them(body: bytes) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(BadBody):
            readers.hashes_of(body)
        assert tracemalloc.get_traced_memory()[1] < 200_000_000
    finally:
        tracemalloc.stop()


def raw(mails: list[Any] = MAILS) -> bytes:
    """zKillboard's raw file."""
    return json.dumps({str(mail.id): mail.body for mail in mails}).encode()


HASHES_OF_OURS = {mail.id: mail.hash for mail in MAILS}


@pytest.mark.parametrize("chunk", [1, 2, 7, 1000, 10**6])
def test_a_raw_file_is_read_in_pieces_of_any_size(monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    monkeypatch.setattr(json_stream, "_CHUNK", chunk)
    small = b' {"1" : {"a": [1.5e3, "\xc3\xa9"]}, "2":12 , "3":-1.5e3,"4":"}"}'
    assert list(json_stream.pairs(io.BytesIO(small))) == [
        ("1", {"a": [1500.0, "é"]}), ("2", 12), ("3", -1500.0), ("4", "}")
    ]  # fmt: skip
    if chunk > 100:
        found = list(readers.zkillboard(io.BytesIO(raw()), HASHES_OF_OURS))
        assert [(one.id, one.killmail[1]) for one in found if isinstance(one, Body)] == list(HASHES_OF_OURS.items())


def test_a_raw_file_cut_off_anywhere_is_damaged() -> None:
    whole = raw(MAILS[:2])
    for cut in range(0, len(whole), 53):
        with pytest.raises(DamagedArchive):
            list(readers.zkillboard(io.BytesIO(whole[:cut]), HASHES_OF_OURS))


@pytest.mark.parametrize(
    "text",
    [b"[]", b"7", b"{1:2}", b'{"a" 1}', b'{"a":1,}', b'{"a":1 "b":2}', b'{"a":{"b":1,"b":2}}', b'{"a":NaN}', b'{"a":"\xff"}',
     b'{"a":' + b"[" * 100_000],
    ids=lambda text: str(text[:20]),
)  # fmt: skip
def test_a_raw_file_that_is_none_is_damaged(text: bytes) -> None:
    with pytest.raises(DamagedArchive):
        list(json_stream.pairs(io.BytesIO(text)))


def test_members_that_are_no_killmails_are_refused_alone() -> None:
    value = {"x": MAILS[0].body, "7": MAILS[0].body, str(MAILS[1].id): MAILS[1].body, str(MAILS[2].id): MAILS[2].body}
    found = list(readers.zkillboard(io.BytesIO(json.dumps(value).encode()), {MAILS[1].id: MAILS[1].hash}))
    assert [type(one) for one in found] == [BadMember, BadMember, Body, BadMember]


def test_of_hashes_the_good_are_taken() -> None:
    body = json.dumps({"1": HASH, "2": "", "3": "CCP VERIFIED", "x": HASH, "4": HASH.upper(), "5": None}).encode()
    assert readers.hashes_of(body) == {1: HASH, 3: "CCP VERIFIED", 4: HASH}


@pytest.mark.parametrize(
    "hash_", ["", " x", "x ", HASH[1:], HASH + "0", "abc", "a\tb", "a\\b", "a\nb", "é!", "x" * 65, "None", 7, None]
)
def test_what_stands_in_the_place_of_a_hash_and_is_neither_hash_nor_words_is_refused(hash_: Any) -> None:
    with pytest.raises(BadField, match="hash"):
        check_hash(1, hash_)


def test_words_in_the_place_of_a_hash_are_kept_and_not_askable() -> None:
    assert check_hash(1, "CCP VERIFIED") == "CCP VERIFIED"
    assert not is_askable("CCP VERIFIED")
    assert is_askable(check_hash(1, HASH.upper()))


# -- folders


def test_a_folder_is_searched_for_each_source(tmp_path: Path) -> None:
    for name in (
        "2021/killmails-2021-11-29.tar.bz2",
        "raw/20211129.json",
        "20211129.json",
        "killmails-2021-13-01.tar.bz2",
        "x",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    folder = Folder(tmp_path)
    for source in (EVEREF, ZKILLBOARD, HASHES):
        assert folder.days(source) == [DAY]
        assert folder.size(source, DAY) == 1
    with pytest.raises(NotFound), folder.open(EVEREF, dt.date(2020, 1, 1)):
        pass


def test_what_may_not_be_read_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given files that belong to somebody else (the tests may run as root, who may read everything)
    (tmp_path / "20260101.json").write_text("{}")
    folder = Folder(tmp_path)

    def refuse(path: Path, *_: Any, **__: Any) -> Any:
        raise PermissionError(13, "Permission denied", str(path))

    for name in ("rglob", "stat", "open"):
        monkeypatch.setattr(Path, name, refuse)
    for attempt in (
        lambda: folder.hashes(dt.date(2026, 1, 1)),
        lambda: folder.size(HASHES, dt.date(2026, 1, 1)),
    ):
        with pytest.raises(NotPermitted, match=r"20260101.json cannot be read: Permission denied; check its owner"):
            attempt()
    monkeypatch.setattr(Path, "is_dir", lambda _: True)
    with pytest.raises(NotPermitted, match="cannot be read"):
        Folder(tmp_path)


def test_a_folder_that_is_none_is_said(tmp_path: Path) -> None:
    with pytest.raises(NotPermitted, match="is no folder"):
        Folder(tmp_path / "nowhere")


# -- links


@pytest.mark.parametrize(
    ("token", "found"),
    [
        (f"7:{HASH}", ("7", HASH)),
        (f"7:{HASH.upper()}", ("7", HASH)),
        (f"https://esi.evetech.net/killmails/7/{HASH}", ("7", HASH)),
        (f"https://esi.evetech.net/latest/killmails/7/{HASH}/", ("7", HASH)),
        (f"https://esi.evetech.net/v1/killmails/7/{HASH.upper()}/?datasource=tranquility", ("7", HASH)),
        ("https://zkillboard.com/kill/7/", ("7", None)),
        ("http://www.zkillboard.com/kill/7", ("7", None)),
        ("https://zkillboard.com/kill/7/#comment", ("7", None)),
    ],
)
def test_every_form_of_a_killmail_is_understood(token: str, found: tuple[str, str | None]) -> None:
    assert killmail(token) == found


@pytest.mark.parametrize(
    "token",
    ["7", "7:", "7:abc", f"https://esi.evetech.net/alliances/7/{HASH}", "https://zkillboard.com/kill/x/", "https://evil.com/kill/7/",
     f"https://esi.evetech.net/killmails/7/{HASH}/more/", "https://zkillboard.com/kill/٧/"],
)  # fmt: skip
def test_what_names_no_killmail_is_refused(token: str) -> None:
    with pytest.raises(UsageError):
        killmail(token)


def test_the_errors_of_sources_have_the_codes_of_the_table() -> None:
    assert (SourceUnavailable.exit_code, DamagedArchive.exit_code) == (69, 65)


def by_field(name: str, content: bytes) -> Body | BadMember:
    """A member of an archive read field by field alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(readers, "of_text", lambda _: None)
        patch.setattr(killmail_body, "of_value", lambda _: None)
        return readers._everef(name, content)


@pytest.mark.parametrize(
    "edit",
    [
        (b'"flag":', b'"flag":1.0,"x":'),
        (b"Z", b"+02:00"),
        (b"Z", b""),
        (b'"victim":', b'"\xff":0,"victim":'),
        (b'"victim":', b'"\xc3\xa9":0,"victim":'),
        (b'"victim":', b'"\\ud800":0,"victim":'),
        (b'"victim":', b'"x":NaN,"victim":'),
        (b'"victim":', b'"x":' + b"[" * 100_000 + b"]" * 100_000 + b',"victim":'),
        (b'"victim":', b'"x":' + b"9" * 5000 + b',"victim":'),
        (b'"solar_system_id":', b'"solar_system_id":-'),
        (b'"solar_system_id":', b'"solar_system_id":0'),
        (b'"killmail_hash":"', b'"killmail_hash":"\\u0000'),
        (b'"security_status":', b'"security_status":1e400,"y":'),
        (b'"victim":', b'"victim":{},"victim":'),
        (b'"flag":', b'"flag":1,"flag":'),
        (b'"flag":', b'"flag" :1, "flag" :'),
        (b'"flag":', b'"x":{"y":1,"y":2},"flag":'),
        (b'"http_last_modified":"', b'"war_id":7,"war_id":7,"http_last_modified":"\\u003a'),
        (b'"attackers":', b'"x":0,"attackers":'),
        (b"}", b"}}"),
        (b"{", b"\xef\xbb\xbf{"),
    ],
    ids=str,
)
def test_a_changed_member_is_refused_or_read_the_same_both_ways(edit: tuple[bytes, bytes]) -> None:
    for name, plain in members(io.BytesIO(tar())):
        assert isinstance(readers._everef(name, plain), Body)
        content = json.dumps(json.loads(plain), separators=(",", ":")).encode().replace(*edit, 1)
        assert readers._everef(name, content) == by_field(name, content)
