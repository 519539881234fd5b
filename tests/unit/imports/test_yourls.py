"""YOURLS: dumps as different programs write them, and its two CSV files."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from io import StringIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snapurl.imports import sql_dump
from snapurl.imports.rows import FileRefused, Found, Reading
from tests.unit.imports.reading import NOW, links, read

CREATE = """
/*!40101 SET character_set_client = utf8 */;
CREATE TABLE `yourls_url` (
  `keyword` varchar(100) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL DEFAULT '',
  `url` text NOT NULL,
  `title` text DEFAULT NULL,
  `timestamp` timestamp NOT NULL DEFAULT current_timestamp(),
  `ip` varchar(41) NOT NULL,
  `clicks` int(10) unsigned NOT NULL,
  PRIMARY KEY (`keyword`),
  KEY `timestamp` (`timestamp`),
  KEY `ip` (`ip`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;
"""
MYSQLDUMP = f"""-- MySQL dump 10.13  Distrib 8.0.36, for Linux (x86_64)
--
-- Host: localhost    Database: l'url
{CREATE}
LOCK TABLES `yourls_url` WRITE;
/*!40000 ALTER TABLE `yourls_url` DISABLE KEYS */;
INSERT INTO `yourls_url` VALUES ('abc','https://example.org/?a=1;b=(2),(3)',\
'It\\'s \\"here\\"; a\\\\b','2020-02-03 04:05:06','::1',12),\
('Abc','https://example.org/',NULL,'0000-00-00 00:00:00','',0);
/*!40000 ALTER TABLE `yourls_url` ENABLE KEYS */;
UNLOCK TABLES;
INSERT INTO `yourls_log` VALUES (1,'2020-02-03 04:05:06','abc','direct','-','::1','');
INSERT INTO `yourls_options` VALUES (1,'siteurl','a:1:{{s:3:"x";}}');
-- Dump completed on 2024-05-06  7:08:09"""
PHPMYADMIN = """-- phpMyAdmin SQL Dump
-- Erstellungszeit: 12. Mai 2024 um 10:00; l'heure
SET SQL_MODE = "NO_AUTO_VALUE_ON_ZERO";
CREATE TABLE `short_url` (`keyword` varchar(200) NOT NULL, `url` text NOT NULL);
INSERT INTO `short_url` (`keyword`, `title`, `url`, `timestamp`, `ip`, `clicks`) VALUES
('a-b', 'it''s', 'https://example.org/1', '2020-02-03 04:05:06', '1.2.3.4', 1),
('x', 'à¤µ', 'https://example.org/2', '2020-02-03 04:05:06', '1.2.3.4', 2);
INSERT INTO `short_url` (`keyword`, `title`, `url`, `timestamp`, `ip`, `clicks`) VALUES
('y', NULL, 'https://example.org/3', '2020-02-03 04:05:06', '1.2.3.4', 3) ON DUPLICATE KEY UPDATE clicks = 1;
ALTER TABLE `short_url` ADD PRIMARY KEY (`keyword`);
"""
NAVICAT = """/*
 Navicat MySQL Data Transfer
 Source Server : it's; local
*/
SET NAMES utf8mb4;
DROP TABLE IF EXISTS `yourls_url`;
CREATE TABLE IF NOT EXISTS `links`.`yourls_url` (`keyword` varchar(200), `url` text, `title` text,
  `timestamp` timestamp, `ip` varchar(41), `clicks` int);
INSERT INTO `yourls_url` VALUES (0x6e6176, 0x68747470733a2f2f6578616d706c652e6f72672f, _binary 'title',
  '2020-02-03 04:05:06', '', '7');
"""


def test_a_dump_of_mysqldump() -> None:
    """The order is that of CREATE TABLE; signs of SQL inside texts and comments are only text."""
    first, second = links("yourls", MYSQLDUMP)
    assert (first.code, first.url, first.clicks) == ("abc", "https://example.org/?a=1;b=(2),(3)", 12)
    assert first.title == 'It\'s "here"; a\\b' and first.created_at == datetime(
        2020, 2, 3, 4, 5, 6, tzinfo=UTC
    )
    assert (second.code, second.title, second.created_at, second.clicks) == ("Abc", None, None, 0)


def test_a_dump_of_phpmyadmin() -> None:
    """The order is that of each INSERT; titles that were stored as Latin-1 are read as UTF-8, and said."""
    first, second, third = links("yourls", PHPMYADMIN)
    assert [(link.code, link.url[-1], link.clicks) for link in (first, second, third)] == [
        ("a-b", "1", 1), ("x", "2", 2), ("y", "3", 3),
    ]  # fmt: skip
    assert (first.title, second.title, third.title) == ("it's", "व", None)
    assert second.remarks and not first.remarks


def test_a_dump_of_navicat() -> None:
    """Hex literals are texts, numbers may be in quotes, and a table may be named with its database."""
    (found,) = links("yourls", NAVICAT)
    assert (found.code, found.url, found.title, found.clicks) == ("nav", "https://example.org/", "title", 7)


def test_a_dump_that_is_not_whole_or_has_no_links() -> None:
    """The end in the middle of a row is an error; so is a dump without the table."""
    for dump in (MYSQLDUMP[: MYSQLDUMP.index("It\\'s") + 9], MYSQLDUMP[: MYSQLDUMP.index("'2020-02")]):
        with pytest.raises(FileRefused, match="not complete"):
            read("yourls", dump)
    with pytest.raises(FileRefused, match="no table"):
        read(
            "yourls", "CREATE TABLE `yourls_options` (`url` text);\nINSERT INTO yourls_options VALUES ('x');"
        )
    two = "INSERT INTO {}_url (keyword, url) VALUES ('a', 'https://example.org/');\n"
    with pytest.raises(FileRefused, match="two installations"):
        read("yourls", two.format("a") + two.format("b"))


def test_a_row_with_too_few_values_has_its_reason() -> None:
    """It stops no other row."""
    found = read(
        "yourls", "INSERT INTO u_url (keyword, url) VALUES ('a'), ('b', 'https://example.org/'), ('', 'x');"
    )
    assert found[0] == "it has 1 values for 2 columns" and isinstance(found[1], Found)
    assert found[2] == "it has no code"


@pytest.mark.parametrize("dump", [MYSQLDUMP, PHPMYADMIN, NAVICAT])
def test_where_the_window_ends_does_not_matter(dump: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A dump is read alike in windows of any size, down to a few characters."""
    whole = list(sql_dump.inserted(StringIO(dump)))
    for size in (1, 2, 3, 7, 64):
        monkeypatch.setattr(sql_dump, "WINDOW_CHARS", size)
        assert list(sql_dump.inserted(StringIO(dump))) == whole


def quoted(text: str) -> str:
    """Returns a string as mysqldump writes it."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n") + "'"


@given(texts=st.lists(st.text(max_size=20), min_size=1, max_size=5))
def test_any_text_survives_a_dump(texts: list[str]) -> None:
    """Whatever is in a string: it is read as it was written, and the next row is not touched."""
    rows = ",".join(f"({quoted(text)},1)" for text in texts)
    found = list(sql_dump.inserted(StringIO(f"INSERT INTO t (a, b) VALUES {rows};", newline="")))
    assert [row.cells for row in found] == [(text, "1") for text in texts]


def test_the_csv_of_the_table_and_that_of_the_plugin() -> None:
    """The plugin writes `/keyword/`, quotes where needed, CRLF."""
    (found,) = links(
        "yourls",
        "keyword,url,title,timestamp,ip,clicks\nabc,https://example.org/,NULL,2020-01-01 00:00:00,::1,5\n",
    )
    assert (found.code, found.title, found.clicks) == ("abc", None, 5)
    (found,) = links("yourls", 'source,target,hits\r\n/abc/,"https://example.org/?a,b",5\r\n')
    assert (found.code, found.url, found.clicks) == ("abc", "https://example.org/?a,b", 5)


def test_visits_of_a_dump_are_days_of_their_links() -> None:
    """Whatever the order of the tables; the larger number of clicks counts; times are of the zone asked for."""
    log = (
        "INSERT INTO `yourls_log` VALUES (1,'2020-02-03 23:30:06','abc','direct','-','::1',''),"
        "(2,'2020-02-03 04:05:06','abc','direct','-','::1',''),(3,'2020-02-04 04:05:06','Abc','','','',''),"
        "(4,'0000-00-00 00:00:00','abc','','','',''),(5,'2999-01-01 00:00:00','abc','','','',''),(6,NULL,NULL);\n"
    )
    first, second = links("yourls", log + MYSQLDUMP)
    assert first.days == {date(2020, 2, 3): (3, 0)} and first.clicks == 12  # one visit is in the dump itself
    assert second.days == {date(2020, 2, 4): (1, 0)} and second.clicks == 1
    zone = timezone(timedelta(hours=-1))
    assert isinstance(moved := read("yourls", log + MYSQLDUMP, Reading(zone, NOW))[0], Found)
    assert moved.days == {date(2020, 2, 3): (2, 0), date(2020, 2, 4): (1, 0)}
    assert isinstance(plain := read("yourls", log + MYSQLDUMP, Reading(UTC, NOW, has_visits=False))[0], Found)
    assert plain.days is None and plain.clicks == 12


def test_visits_on_too_many_days_are_refused_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are held in memory, so there is a bound."""
    monkeypatch.setattr("snapurl.imports.rows.VISIT_DAYS_MAX", 0)
    with pytest.raises(FileRefused, match="--no-visits"):
        read("yourls", MYSQLDUMP)
