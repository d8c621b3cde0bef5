"""Which tables a query reads, and of which server's database, in the ways in which people write them."""

from __future__ import annotations

import pytest

from flfed.rows.data.parsing.queries import server_of, tables_of

READS = {
    "WITH visits AS (SELECT * FROM visits WHERE a) SELECT * FROM visits": "visits",
    "WITH a(x) AS (SELECT 1 FROM b), c AS MATERIALIZED (SELECT * FROM a, d) SELECT * FROM c, p.a": "a b d",
    "WITH RECURSIVE t AS (SELECT 1 UNION ALL SELECT n + 1 FROM t) SELECT * FROM t, visits": "visits",
    "SELECT * FROM (visits v JOIN labs l ON v.i = l.i)": "labs visits",
    "SELECT * FROM ((a JOIN b ON 1 = 1) JOIN c ON 1 = 1), LATERAL (SELECT * FROM d) x": "a b c d",
    "SELECT * FROM (visits)": "visits", "TABLE visits": "visits", "SELECT i FROM a UNION TABLE b": "a b",
    "SELECT * FROM a LEFT JOIN b ON a.i = b.i AND f(a.x, b.x), c": "a b c",
    "SELECT * FROM ONLY visits": "visits", "SELECT x FROM hospital..visits": "visits",
    "SELECT x FROM `project.set.visits`": "visits", "SELECT * FROM a STRAIGHT_JOIN b": "a b",
    "SELECT * FROM (SELECT a FROM x, y) s, z WHERE i IN (SELECT i FROM w) ORDER BY a, b": "w x y z",
    "SELECT extract(year FROM day), substring(x FROM 2) FROM visits WHERE a IS DISTINCT FROM b": "visits",
    "SELECT '-- it''s from x', \"from y\" FROM visits -- from z": "visits",
    "SELECT 'it\\'s' FROM visits WHERE a = 'x'": "visits", "SELECT '\\' FROM visits": "visits",
    "SELECT * FROM (VALUES (1, 2)) v(a, b), labs": "labs", "SELECT 1": "",
}  # fmt: skip
SERVERS = [
    ["postgresql://localhost/db", "postgresql+psycopg://u:p@127.0.0.1:5432/db?sslmode=require", "postgresql:///db"],
    [
        "postgresql:///db?host=One.local", "postgresql://one.local:5432/db",
        "postgresql:///?host=one.local:5432&dbname=db",
    ],
    ["postgresql:///db?host=two.local"],
    ["postgresql://localhost:5433/db", "postgresql:///db?host=/var/run/postgresql&port=5433"],
    [
        "mssql+pyodbc:///?odbc_connect=DRIVER%3D%7BX%7D%3BServer%3Dtcp%3Aone%2C1433%3BDatabase%3Ddb%3BUID%3Da%3BPWD%3Dsecret",
        "mssql+pyodbc://one/db?driver=X",
    ],
    ["mssql+pyodbc:///?odbc_connect=SERVER%3Dtwo%3BDATABASE%3Ddb"], ["mysql://one/db", "mysql+pymysql://u@one:3306/db"],
]  # fmt: skip


@pytest.mark.parametrize("query", READS)
def test_every_table_that_a_query_reads_is_found_and_no_name_that_it_made(query):
    assert tables_of(query) == READS[query].split()
    assert tables_of(query.replace(" ", "\n ")) == READS[query].split() or "--" in query


def test_addresses_of_one_database_are_one_and_of_others_are_not():
    names = [{server_of(url) for url in urls} for urls in SERVERS]
    assert [len(found) for found in names] == [1] * len(SERVERS)
    assert len(set.union(*names)) == len(SERVERS)
    assert not any("secret" in name for found in names for name in found)
