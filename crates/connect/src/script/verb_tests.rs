//! What kind of statement each one is taken for.

use crate::script::Dialect;
use crate::script::split::tests::{check, show};

#[test]
fn postgresql_verbs() {
    let script = "\
        SELECT 1; (SELECT 1); VALUES (1); TABLE t; SHOW x; EXPLAIN SELECT 1; WITH a AS (SELECT 1) SELECT 'insert' FROM a;\
        WITH a AS (DELETE FROM t RETURNING *) SELECT 1; SELECT 1 INTO t; SELECT 1 FOR UPDATE; SELECT 1 FOR NO KEY UPDATE; SELECT 1 FOR SHARE;\
        EXPLAIN ANALYZE SELECT 1; EXPLAIN (ANALYZE) SELECT 1; CALL p(); MERGE INTO t; FROBNICATE; COPY t TO STDOUT; FETCH 1 FROM c;\
        CREATE TABLE t (); DROP INDEX i; REINDEX TABLE t; CLUSTER t; GRANT x TO y; TRUNCATE t; LOCK TABLE t; NOTIFY x;\
        VACUUM; CREATE DATABASE d; DROP DATABASE d; CREATE UNIQUE INDEX CONCURRENTLY i ON t (a); DROP INDEX CONCURRENTLY i; REINDEX (VERBOSE) TABLE CONCURRENTLY t;\
        REINDEX DATABASE d; ALTER SYSTEM SET x = 1; CREATE TABLESPACE t; ALTER DATABASE d SET TABLESPACE t; ALTER DATABASE d SET x = 1; CREATE SUBSCRIPTION s; CLUSTER; CLUSTER VERBOSE; DISCARD ALL;\
        COMMIT PREPARED 'x'; ALTER TABLE t DETACH PARTITION p CONCURRENTLY; SET x = 1; RESET x; PREPARE p AS SELECT 1; LISTEN x;\
        BEGIN; START TRANSACTION READ ONLY; COMMIT AND CHAIN; END; ABORT; ROLLBACK; ROLLBACK WORK TO a; SAVEPOINT a; RELEASE a";
    check!(PostgreSql, script, @r"
    1 1:1 Read SELECT 1
    2 1:11 Read (SELECT 1)
    3 1:23 Read VALUES (1)
    4 1:35 Read TABLE t
    5 1:44 Read SHOW x
    6 1:52 Read EXPLAIN SELECT 1
    7 1:70 Read WITH a AS (SELECT 1) SELECT 'insert' FROM a
    8 1:114 Write WITH a AS (DELETE FROM t RETURNING *) SELECT 1
    9 1:162 Write SELECT 1 INTO t
    10 1:179 Write SELECT 1 FOR UPDATE
    11 1:200 Write SELECT 1 FOR NO KEY UPDATE
    12 1:228 Write SELECT 1 FOR SHARE
    13 1:247 Write EXPLAIN ANALYZE SELECT 1
    14 1:273 Write EXPLAIN (ANALYZE) SELECT 1
    15 1:301 Write CALL p()
    16 1:311 Write MERGE INTO t
    17 1:325 Write FROBNICATE
    18 1:337 Read COPY t TO STDOUT
    19 1:355 Read FETCH 1 FROM c
    20 1:370 Define CREATE TABLE t ()
    21 1:389 Define DROP INDEX i
    22 1:403 Define REINDEX TABLE t
    23 1:420 Define CLUSTER t
    24 1:431 Define GRANT x TO y
    25 1:445 Write TRUNCATE t
    26 1:457 Write LOCK TABLE t
    27 1:471 Write NOTIFY x
    28 1:480 NoTransaction VACUUM
    29 1:488 NoTransaction CREATE DATABASE d
    30 1:507 NoTransaction DROP DATABASE d
    31 1:524 NoTransaction CREATE UNIQUE INDEX CONCURRENTLY i ON t (a)
    32 1:569 NoTransaction DROP INDEX CONCURRENTLY i
    33 1:596 NoTransaction REINDEX (VERBOSE) TABLE CONCURRENTLY t
    34 1:635 NoTransaction REINDEX DATABASE d
    35 1:655 NoTransaction ALTER SYSTEM SET x = 1
    36 1:679 NoTransaction CREATE TABLESPACE t
    37 1:700 NoTransaction ALTER DATABASE d SET TABLESPACE t
    38 1:735 Define ALTER DATABASE d SET x = 1
    39 1:763 NoTransaction CREATE SUBSCRIPTION s
    40 1:786 NoTransaction CLUSTER
    41 1:795 NoTransaction CLUSTER VERBOSE
    42 1:812 NoTransaction DISCARD ALL
    43 1:824 NoTransaction COMMIT PREPARED 'x'
    44 1:845 NoTransaction ALTER TABLE t DETACH PARTITION p CONCURRENTLY
    45 1:892 Session SET x = 1
    46 1:903 Session RESET x
    47 1:912 Session PREPARE p AS SELECT 1
    48 1:935 Session LISTEN x
    49 1:944 Begin BEGIN
    50 1:951 Begin START TRANSACTION READ ONLY
    51 1:980 Commit COMMIT AND CHAIN
    52 1:998 Commit END
    53 1:1003 Rollback ABORT
    54 1:1010 Rollback ROLLBACK
    55 1:1020 Savepoint ROLLBACK WORK TO a
    56 1:1040 Savepoint SAVEPOINT a
    57 1:1053 Savepoint RELEASE a
    ");
}

#[test]
fn mysql_verbs() {
    let script = "\
        SELECT 1; SELECT 1 INTO @x; SELECT 1 INTO OUTFILE 'x'; SELECT 1 LOCK IN SHARE MODE; SHOW TABLES; DESC t; EXPLAIN SELECT 1; ANALYZE SELECT 1;\
        REPLACE INTO t VALUES (1); LOAD DATA INFILE 'x' INTO TABLE t; CALL p(); CREATE TEMPORARY TABLE t (a int); CREATE OR REPLACE TEMPORARY TABLE t (a int); DROP TEMPORARY TABLE t;\
        CREATE TABLE t (a int); CREATE OR REPLACE TABLE t (a int); TRUNCATE t; ALTER TABLE t ADD b int; RENAME TABLE a TO b; GRANT x TO y; LOCK TABLES t WRITE; UNLOCK TABLES; ANALYZE TABLE t;\
        OPTIMIZE TABLE t; LOAD INDEX INTO CACHE t; FLUSH TABLES; SET PASSWORD = 'x'; SET autocommit=0; USE d; DROP PREPARE p; START SLAVE;\
        START TRANSACTION; BEGIN WORK; COMMIT; ROLLBACK; ROLLBACK TO a; XA START 'x'";
    check!(MySql, script, @r"
    1 1:1 Read SELECT 1
    2 1:11 Read SELECT 1 INTO @x
    3 1:29 Write SELECT 1 INTO OUTFILE 'x'
    4 1:56 Write SELECT 1 LOCK IN SHARE MODE
    5 1:85 Read SHOW TABLES
    6 1:98 Read DESC t
    7 1:106 Read EXPLAIN SELECT 1
    8 1:124 Write ANALYZE SELECT 1
    9 1:141 Write REPLACE INTO t VALUES (1)
    10 1:168 Write LOAD DATA INFILE 'x' INTO TABLE t
    11 1:203 Write CALL p()
    12 1:213 Define CREATE TEMPORARY TABLE t (a int)
    13 1:247 Define CREATE OR REPLACE TEMPORARY TABLE t (a int)
    14 1:292 Define DROP TEMPORARY TABLE t
    15 1:315 ImplicitCommit CREATE TABLE t (a int)
    16 1:339 ImplicitCommit CREATE OR REPLACE TABLE t (a int)
    17 1:374 ImplicitCommit TRUNCATE t
    18 1:386 ImplicitCommit ALTER TABLE t ADD b int
    19 1:411 ImplicitCommit RENAME TABLE a TO b
    20 1:432 ImplicitCommit GRANT x TO y
    21 1:446 ImplicitCommit LOCK TABLES t WRITE
    22 1:467 ImplicitCommit UNLOCK TABLES
    23 1:482 ImplicitCommit ANALYZE TABLE t
    24 1:498 ImplicitCommit OPTIMIZE TABLE t
    25 1:516 ImplicitCommit LOAD INDEX INTO CACHE t
    26 1:541 ImplicitCommit FLUSH TABLES
    27 1:555 ImplicitCommit SET PASSWORD = 'x'
    28 1:575 Session SET autocommit=0
    29 1:593 Session USE d
    30 1:600 Session DROP PREPARE p
    31 1:616 ImplicitCommit START SLAVE
    32 1:628 Begin START TRANSACTION
    33 1:647 Begin BEGIN WORK
    34 1:659 Commit COMMIT
    35 1:667 Rollback ROLLBACK
    36 1:677 Savepoint ROLLBACK TO a
    37 1:692 NoTransaction XA START 'x'
    ");
}

#[test]
fn mysql_what_commits_in_hiding() {
    let script = "\
        SET STATEMENT max_statement_time=1 FOR DELETE FROM t; SET STATEMENT max_statement_time=1 FOR SELECT 1; SET DEFAULT ROLE NONE; SET autocommit = 1;\
        SET @old=@@autocommit, autocommit=OFF; SET @x = 1, @@session.autocommit := ON; EXECUTE IMMEDIATE 'create table t (a int)'; EXECUTE IMMEDIATE 'delete from t';\
        EXECUTE IMMEDIATE @x; EXECUTE IMMEDIATE 'COMMIT'; SET STATEMENT a=1 FOR ROLLBACK; EXECUTE p; BEGIN NOT ATOMIC SET a = TRUNCATE(1.5, 1); CREATE TEMPORARY TABLE t (a int); END; BEGIN NOT ATOMIC DROP TABLE t; END";
    check!(MySql, script, @r"
    1 1:1 Write SET STATEMENT max_statement_time=1 FOR DELETE FROM t
    2 1:55 Read SET STATEMENT max_statement_time=1 FOR SELECT 1
    3 1:104 ImplicitCommit SET DEFAULT ROLE NONE
    4 1:127 ImplicitCommit SET autocommit = 1
    5 1:146 Session SET @old=@@autocommit, autocommit=OFF
    6 1:185 ImplicitCommit SET @x = 1, @@session.autocommit := ON
    7 1:225 ImplicitCommit EXECUTE IMMEDIATE 'create table t (a int)'
    8 1:269 Write EXECUTE IMMEDIATE 'delete from t'
    9 1:303 Write EXECUTE IMMEDIATE @x
    10 1:325 ImplicitCommit EXECUTE IMMEDIATE 'COMMIT'
    11 1:353 ImplicitCommit SET STATEMENT a=1 FOR ROLLBACK
    12 1:385 Write EXECUTE p
    13 1:396 Write BEGIN NOT ATOMIC SET a = TRUNCATE(1.5, 1); CREATE TEMPORARY TABLE t (a int); END
    14 1:478 ImplicitCommit BEGIN NOT ATOMIC DROP TABLE t; END
    ");
    check!(Oracle, "BEGIN EXECUTE IMMEDIATE 'TRUNCATE TABLE t'; END;\n/\nBEGIN EXECUTE IMMEDIATE 'DELETE FROM t' || x; END;\n/", @r"
    1 1:1 ImplicitCommit BEGIN EXECUTE IMMEDIATE 'TRUNCATE TABLE t'; END;
    2 3:1 Write BEGIN EXECUTE IMMEDIATE 'DELETE FROM t' || x; END;
    ");
}

#[test]
fn sqlite_verbs() {
    let script = "\
        SELECT 1; WITH a AS (SELECT 1) SELECT replace('a', 'b', 'c') FROM a; WITH a AS (SELECT 1) REPLACE INTO t SELECT 1; REPLACE INTO t VALUES (1);\
        BEGIN IMMEDIATE; BEGIN EXCLUSIVE TRANSACTION; END TRANSACTION; ROLLBACK TRANSACTION TO SAVEPOINT a; VACUUM; ATTACH 'x' AS y; DETACH y;\
        PRAGMA journal_mode = WAL; PRAGMA journal_mode; PRAGMA main.user_version = 2; PRAGMA table_info(t); PRAGMA cache_size = 1; PRAGMA foreign_keys=ON; PRAGMA wal_checkpoint; CREATE TABLE t (a); ANALYZE";
    check!(Sqlite, script, @r"
    1 1:1 Read SELECT 1
    2 1:11 Read WITH a AS (SELECT 1) SELECT replace('a', 'b', 'c') FROM a
    3 1:70 Write WITH a AS (SELECT 1) REPLACE INTO t SELECT 1
    4 1:116 Write REPLACE INTO t VALUES (1)
    5 1:142 Begin BEGIN IMMEDIATE
    6 1:159 Begin BEGIN EXCLUSIVE TRANSACTION
    7 1:188 Commit END TRANSACTION
    8 1:205 Savepoint ROLLBACK TRANSACTION TO SAVEPOINT a
    9 1:242 NoTransaction VACUUM
    10 1:250 NoTransaction ATTACH 'x' AS y
    11 1:267 NoTransaction DETACH y
    12 1:276 NoTransaction PRAGMA journal_mode = WAL
    13 1:303 Read PRAGMA journal_mode
    14 1:324 Write PRAGMA main.user_version = 2
    15 1:354 Read PRAGMA table_info(t)
    16 1:376 Session PRAGMA cache_size = 1
    17 1:399 NoTransaction PRAGMA foreign_keys=ON
    18 1:423 NoTransaction PRAGMA wal_checkpoint
    19 1:446 Define CREATE TABLE t (a)
    20 1:466 Define ANALYZE
    ");
}
