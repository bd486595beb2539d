//! Each rule of each dialect, script in and statements out.

use super::*;
use crate::script::plan;

/// `number line:column verb text`, a line a statement; line ends inside a text show as `⏎`.
pub(in crate::script) fn show(dialect: Dialect, script: &str) -> String {
    match split(dialect, script) {
        Ok(statements) => statements.iter().map(|statement| show_one(script, statement)).collect::<Vec<_>>().join("\n"),
        Err(error) => format!("{}:{} {}\nhint: {}", error.line, error.column, error.what, error.hint.unwrap_or_default()),
    }
}

fn show_one(script: &str, statement: &Statement) -> String {
    let text = script[statement.text.clone()].replace('\r', "").replace('\n', "⏎");
    let copy = statement.copy_data.clone().map(|data| format!(" <<{}>>", script[data].replace('\r', "").replace('\n', "⏎")));
    let repeat = if statement.repeat == 1 { String::new() } else { format!(" x{}", statement.repeat) };
    let Statement { number, line, column, verb, .. } = statement;
    format!("{number} {line}:{column} {verb:?} {text}{}{repeat}", copy.unwrap_or_default())
}

macro_rules! check {
    ($dialect:ident, $script:expr, @$expected:literal) => {
        insta::assert_snapshot!(show(Dialect::$dialect, $script), @$expected)
    };
}

pub(in crate::script) use check;

const ALL: [Dialect; 6] =
    [Dialect::PostgreSql, Dialect::MySql, Dialect::Sqlite, Dialect::SqlServer, Dialect::Oracle, Dialect::Generic];

#[test]
fn empty_statements_are_dropped() {
    for dialect in ALL {
        assert_eq!(split(dialect, ""), Ok(vec![]));
        assert_eq!(split(dialect, "\u{feff}"), Ok(vec![]));
        assert_eq!(split(dialect, " \r\n -- nothing\n /* at all */ \n"), Ok(vec![]));
    }
    check!(PostgreSql, ";;SELECT 1;;\n; -- c\n;/* d */;", @"1 1:3 Read SELECT 1");
}

#[test]
fn lines_and_columns_are_those_of_the_first_token() {
    check!(PostgreSql, "\u{feff}SELECT 1;\r\n\r\n  -- é\r\n\té; /* a\nb */ SELECT 'x\ny' -- tail\n ; SELECT 3 /* end */", @r"
    1 1:1 Read SELECT 1
    2 4:2 Write é
    3 5:6 Read SELECT 'x⏎y'
    4 7:4 Read SELECT 3
    ");
    check!(Generic, "SELECT 'é'; SELECT 2", @r"
    1 1:1 Read SELECT 'é'
    2 1:13 Read SELECT 2
    ");
}

#[test]
fn postgresql_quotes() {
    check!(PostgreSql, r"SELECT 'a;''b\'; SELECT E'a;\'b', e'\\'; SELECT U&'\0041;', B'1;'; SELECT xe'a\';", @r"
    1 1:1 Read SELECT 'a;''b\'
    2 1:18 Read SELECT E'a;\'b', e'\\'
    3 1:42 Read SELECT U&'\0041;', B'1;'
    4 1:68 Read SELECT xe'a\'
    ");
    check!(PostgreSql, "SELECT E'a'\n -- it goes on\n 'b\\';' ; SELECT E'a' 'b\\'; SELECT 1", @r"
    1 1:1 Read SELECT E'a'⏎ -- it goes on⏎ 'b\';'
    2 3:11 Read SELECT E'a' 'b\'
    3 3:29 Read SELECT 1
    ");
    check!(PostgreSql, r#"SELECT "a;""b", U&"d\0061;" FROM t; SELECT 2"#, @r#"
    1 1:1 Read SELECT "a;""b", U&"d\0061;" FROM t
    2 1:37 Read SELECT 2
    "#);
    check!(PostgreSql, "SELECT $$a;$b$;$$; SELECT $t$;$T$;$$;$t$, $é$;$é$; SELECT $1, a$b$;SELECT a$$;", @r"
    1 1:1 Read SELECT $$a;$b$;$$
    2 1:20 Read SELECT $t$;$T$;$$;$t$, $é$;$é$
    3 1:52 Read SELECT $1, a$b$
    4 1:68 Read SELECT a$$
    ");
    check!(PostgreSql, "SELECT $1$a$;$a$; SELECT 1$a$;$a$; SELECT $$x$$e'\\';'", @r"
    1 1:1 Read SELECT $1$a$;$a$
    2 1:19 Read SELECT 1$a$;$a$
    3 1:36 Read SELECT $$x$$e'\';'
    ");
    check!(PostgreSql, "SELECT 1 /* a /* ; */ b ; */; SELECT 2 -- ;\n+ 1; SELECT 1 # 2; SELECT 1 -/* ; */ 2", @r"
    1 1:1 Read SELECT 1
    2 1:31 Read SELECT 2 -- ;⏎+ 1
    3 2:6 Read SELECT 1 # 2
    4 2:20 Read SELECT 1 -/* ; */ 2
    ");
    check!(PostgreSql, "SELECT 1 -- cr\rFROM t; SELECT 2", @r"
    1 1:1 Read SELECT 1 -- crFROM t
    2 1:24 Read SELECT 2
    ");
}

#[test]
fn postgresql_what_is_never_closed() {
    check!(PostgreSql, "SELECT 1;\n SELECT 'a;", @r"
    2:9 the string that begins here is never closed
    hint: close it with the same quote; a quote inside the string is written twice
    ");
    check!(PostgreSql, "SELECT E'a\\'", @r"
    1:9 the string that begins here is never closed
    hint: close it with the same quote; a quote inside the string is written twice
    ");
    check!(PostgreSql, "SELECT \"a", @r"
    1:8 the quoted name that begins here is never closed
    hint: close it; a closing quote inside the name is written twice
    ");
    check!(PostgreSql, "SELECT 1,\n  $é$ $$ $e$", @r"
    2:3 the dollar quote that begins here is never closed
    hint: close it with the very same tag, in the same case
    ");
    check!(PostgreSql, "/* /* */", @r"
    1:1 the comment that begins here is never closed
    hint: close it with */; nested comments each need their own
    ");
    check!(PostgreSql, "SELECT 1; /* /* */", @r"
    1:11 the comment that begins here is never closed
    hint: close it with */; nested comments each need their own
    ");
}

#[test]
fn postgresql_bodies() {
    check!(PostgreSql, "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT CASE 1 WHEN 1 THEN 2 END AS end; SELECT t.case FROM t; END; SELECT 1", @r"
    1 1:1 Define CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT CASE 1 WHEN 1 THEN 2 END AS end; SELECT t.case FROM t; END
    2 1:113 Read SELECT 1
    ");
    check!(PostgreSql, "create or replace procedure p() begin\natomic insert into t values (1); end ; BEGIN; SELECT 1; END", @r"
    1 1:1 Define create or replace procedure p() begin⏎atomic insert into t values (1); end
    2 2:40 Begin BEGIN
    3 2:47 Read SELECT 1
    4 2:57 Commit END
    ");
    check!(PostgreSql, "CREATE FUNCTION f() AS $$ BEGIN ATOMIC; $$ LANGUAGE sql; SELECT 1", @r"
    1 1:1 Define CREATE FUNCTION f() AS $$ BEGIN ATOMIC; $$ LANGUAGE sql
    2 1:58 Read SELECT 1
    ");
    check!(PostgreSql, "CREATE FUNCTION f() BEGIN ATOMIC SELECT 1;", @r"
    1:21 the BEGIN ATOMIC that begins here has no END
    hint: end the body with END; each CASE in it needs its END too
    ");
    check!(PostgreSql, "CREATE TABLE begin (atomic int); SELECT 1", @r"
    1 1:1 Define CREATE TABLE begin (atomic int)
    2 1:34 Read SELECT 1
    ");
    check!(PostgreSql, "CREATE RULE r AS ON INSERT TO t WHERE (a) DO ALSO (INSERT INTO u VALUES (1); DELETE FROM v); SELECT 1", @r"
    1 1:1 Define CREATE RULE r AS ON INSERT TO t WHERE (a) DO ALSO (INSERT INTO u VALUES (1); DELETE FROM v)
    2 1:94 Read SELECT 1
    ");
    check!(PostgreSql, "CREATE RULE r AS ON INSERT TO t DO ALSO (INSERT INTO u; DELETE FROM v", @r"
    1:41 the parenthesis that begins here is never closed
    hint: close the list of the rule's actions with )
    ");
    check!(PostgreSql, "DO $x$ BEGIN PERFORM 1; END $x$; DO $$ BEGIN FOR r IN 1..2 LOOP DELETE FROM t; COMMIT; END LOOP; END $$", @r"
    1 1:1 Write DO $x$ BEGIN PERFORM 1; END $x$
    2 1:34 NoTransaction DO $$ BEGIN FOR r IN 1..2 LOOP DELETE FROM t; COMMIT; END LOOP; END $$
    ");
    check!(PostgreSql, "DO $$ BEGIN CREATE TEMP TABLE t () ON COMMIT DROP; RAISE 'commit; COMMIT'; END $$", @"1 1:1 Write DO $$ BEGIN CREATE TEMP TABLE t () ON COMMIT DROP; RAISE 'commit; COMMIT'; END $$");
}

#[test]
fn postgresql_copy() {
    check!(PostgreSql, "COPY t (a, b) FROM STDIN WITH (FORMAT csv); -- data\n1,';'\n\\.x\n\\.\nSELECT 1", @r"
    1 1:1 Write COPY t (a, b) FROM STDIN WITH (FORMAT csv) <<1,';'⏎\.x⏎>>
    2 5:1 Read SELECT 1
    ");
    check!(PostgreSql, "copy t from stdin;\r\n\\.\r\nSELECT 1;", @r"
    1 1:1 Write copy t from stdin <<>>
    2 3:1 Read SELECT 1
    ");
    check!(PostgreSql, "COPY t FROM STDIN;\n$$\n\\.", @"1 1:1 Write COPY t FROM STDIN <<$$⏎>>");
    check!(PostgreSql, "COPY (SELECT * FROM stdin) TO STDOUT; COPY t FROM '/x'; COPY t TO '/x'; SELECT 1", @r"
    1 1:1 Write COPY (SELECT * FROM stdin) TO STDOUT
    2 1:39 Write COPY t FROM '/x'
    3 1:57 Write COPY t TO '/x'
    4 1:73 Read SELECT 1
    ");
    check!(PostgreSql, "SELECT 1;\nCOPY t FROM STDIN;\n1\n2", @r"
    3:1 the COPY data that begins here is never ended
    hint: end it with a line of \. alone
    ");
    check!(PostgreSql, "COPY t FROM STDIN", @r"
    1:1 this COPY ... FROM STDIN has no data
    hint: end the statement with a semicolon, then write the data, then a line of \. alone
    ");
    check!(PostgreSql, "COPY t FROM STDIN; SELECT 1;\n\\.\n", @r"
    1:20 COPY data begins on the line after the semicolon, but here is something else
    hint: put what follows the semicolon after the line of \. that ends the data
    ");
    check!(PostgreSql, "COPY t FROM STDIN;", @r"
    1:19 the COPY data that begins here is never ended
    hint: end it with a line of \. alone
    ");
}

#[test]
fn postgresql_psql_commands_are_refused() {
    check!(PostgreSql, "\\set x 1\nSELECT :x", @r"
    1:1 this is a command of psql, not SQL
    hint: commands that begin with a backslash cannot run here: remove it, or write what it does in SQL; \set variables become params
    ");
    check!(PostgreSql, "SELECT 1\n  \\gset", @r"
    2:3 this is a command of psql, not SQL
    hint: commands that begin with a backslash cannot run here: remove it, or write what it does in SQL; \set variables become params
    ");
    check!(PostgreSql, "SELECT '\\'; SELECT $$\\$$", @r"
    1 1:1 Read SELECT '\'
    2 1:13 Read SELECT $$\$$
    ");
}

#[test]
fn mysql_quotes_and_comments() {
    check!(MySql, r#"SELECT 'a;\'b', "c;\"d""e", `f;``g\`; SELECT 'it''s;'; SELECT 2"#, @r#"
    1 1:1 Read SELECT 'a;\'b', "c;\"d""e", `f;``g\`
    2 1:39 Read SELECT 'it''s;'
    3 1:56 Read SELECT 2
    "#);
    check!(MySql, "SELECT 1 # ; ' \n; SELECT 2--1; SELECT 3 -- ; '\n; SELECT 4 --\n; SELECT 5 --\t;", @r"
    1 1:1 Read SELECT 1
    2 2:3 Read SELECT 2--1
    3 2:16 Read SELECT 3
    4 3:3 Read SELECT 4
    5 4:3 Read SELECT 5
    ");
    check!(MySql, "SELECT 1 /* a /* ; */; SELECT $$; SELECT 2", @r"
    1 1:1 Read SELECT 1
    2 1:24 Read SELECT $$
    3 1:35 Read SELECT 2
    ");
    check!(MySql, "/*!40101 SET NAMES utf8 */;\n/*M!100100 SELECT 1; '*/' */ ; /*!50003 CREATE*/ /*!50017 DEFINER=`a`@`b`*/ /*!50003 TABLE t (a int) */;", @r"
    1 1:1 Session /*!40101 SET NAMES utf8 */
    2 2:1 Read /*M!100100 SELECT 1; '*/' */
    3 2:32 ImplicitCommit /*!50003 CREATE*/ /*!50017 DEFINER=`a`@`b`*/ /*!50003 TABLE t (a int) */
    ");
    check!(MySql, "/*M!999999\\- enable the sandbox mode */ \n-- dump\n/*!40101 SET @x=1 */;", @"1 3:1 Session /*!40101 SET @x=1 */");
    check!(MySql, "SELECT 1;\n/*! SELECT 2;", @r"
    2:1 the comment that begins here is never closed
    hint: close it with */; nested comments each need their own
    ");
    check!(MySql, "SELECT 'a\\'", @r"
    1:8 the string that begins here is never closed
    hint: close it with the same quote; a quote inside the string is written twice
    ");
}

#[test]
fn mysql_delimiter() {
    check!(MySql, "DELIMITER //\nCREATE PROCEDURE p() BEGIN SELECT 1; END//\nSELECT 2//\ndelimiter ;\nSELECT 3; SELECT 4", @r"
    1 2:1 ImplicitCommit CREATE PROCEDURE p() BEGIN SELECT 1; END
    2 3:1 Read SELECT 2
    3 5:1 Read SELECT 3
    4 5:11 Read SELECT 4
    ");
    check!(MySql, "DELIMITER $$\r\nSELECT '$$'; SELECT 1 -- $$\r\n$$\r\nDELIMITER ;\r\nSELECT 2;", @r"
    1 2:1 Read SELECT '$$'; SELECT 1
    2 5:1 Read SELECT 2
    ");
    check!(MySql, "SELECT 1; DELIMITER '|' rest is ignored\nSELECT 2|SELECT 3;", @r"
    1 1:1 Read SELECT 1
    2 2:1 Read SELECT 2
    3 2:10 Read SELECT 3;
    ");
    check!(MySql, "DELIMITER ;;\n/*!50003 CREATE TRIGGER t BEFORE INSERT ON x FOR EACH ROW BEGIN SET NEW.a = 1; END */;;\nDELIMITER ;", @"1 2:1 ImplicitCommit /*!50003 CREATE TRIGGER t BEFORE INSERT ON x FOR EACH ROW BEGIN SET NEW.a = 1; END */");
    check!(MySql, "DELIMITER\nSELECT 1", @r"
    1:1 this DELIMITER line names no delimiter
    hint: write it on the same line: DELIMITER //
    ");
    check!(MySql, "DELIMITER //\nCREATE PROCEDURE p() SELECT 1;\n  DELIMITER ;\nSELECT 2;", @r"
    3:3 this DELIMITER line comes before the statement above it has ended
    hint: end the statement above with the delimiter that is in force
    ");
    check!(MySql, "CREATE TABLE t (\n delimiter int); SELECT delimiter\nFROM t; SELECT 1", @r"
    1 1:1 ImplicitCommit CREATE TABLE t (⏎ delimiter int)
    2 2:18 Read SELECT delimiter⏎FROM t
    3 3:9 Read SELECT 1
    ");
    check!(MySql, "DELIMITER é\nSELECT 1 é SELECT 2", @r"
    1 2:1 Read SELECT 1
    2 2:12 Read SELECT 2
    ");
    check!(MySql, "DELIMITER --\nSELECT 1 -- SELECT 2;", @r"
    1 2:1 Read SELECT 1
    2 2:13 Read SELECT 2;
    ");
}

#[test]
fn mysql_bodies_without_delimiter() {
    check!(MySql, "CREATE DEFINER=`r`@`h` PROCEDURE p(IN a INT) COMMENT 'x' BEGIN DECLARE b INT; IF a > 1 THEN SELECT IF(a,1,2); ELSEIF a THEN SELECT 2; ELSE BEGIN END; END IF; END; SELECT 1", @r"
    1 1:1 ImplicitCommit CREATE DEFINER=`r`@`h` PROCEDURE p(IN a INT) COMMENT 'x' BEGIN DECLARE b INT; IF a > 1 THEN SELECT IF(a,1,2); ELSEIF a THEN SELECT 2; ELSE BEGIN END; END IF; END
    2 1:164 Read SELECT 1
    ");
    check!(MySql, "CREATE PROCEDURE p() l: LOOP SET @x := CASE WHEN a THEN IF(b,1,2) ELSE REPEAT('x', 3) END; IF (@x) THEN LEAVE l; END IF; END LOOP l; SELECT 1", @r"
    1 1:1 ImplicitCommit CREATE PROCEDURE p() l: LOOP SET @x := CASE WHEN a THEN IF(b,1,2) ELSE REPEAT('x', 3) END; IF (@x) THEN LEAVE l; END IF; END LOOP l
    2 1:134 Read SELECT 1
    ");
    check!(MySql, "CREATE FUNCTION f() RETURNS INT BEGIN REPEAT SET x = x + 1; UNTIL x > CASE a WHEN 1 THEN 2 END END REPEAT; WHILE x DO CASE x WHEN 1 THEN SELECT end, begin FROM t; ELSE SET y = 1; END CASE; END WHILE; RETURN 1; END; SELECT 1", @r"
    1 1:1 ImplicitCommit CREATE FUNCTION f() RETURNS INT BEGIN REPEAT SET x = x + 1; UNTIL x > CASE a WHEN 1 THEN 2 END END REPEAT; WHILE x DO CASE x WHEN 1 THEN SELECT end, begin FROM t; ELSE SET y = 1; END CASE; END WHILE; RETURN 1; END
    2 1:216 Read SELECT 1
    ");
    check!(MySql, "CREATE TRIGGER t BEFORE INSERT ON x FOR EACH ROW SET NEW.a = IF(NEW.b, 1, CASE 1 WHEN 1 THEN 2 END); SELECT 1", @r"
    1 1:1 ImplicitCommit CREATE TRIGGER t BEFORE INSERT ON x FOR EACH ROW SET NEW.a = IF(NEW.b, 1, CASE 1 WHEN 1 THEN 2 END)
    2 1:102 Read SELECT 1
    ");
    check!(MySql, "CREATE TRIGGER t BEFORE INSERT ON x FOR EACH ROW FOLLOWS u BEGIN DECLARE EXIT HANDLER FOR SQLEXCEPTION BEGIN ROLLBACK; END; SET @a = 1; END; SELECT 1", @r"
    1 1:1 ImplicitCommit CREATE TRIGGER t BEFORE INSERT ON x FOR EACH ROW FOLLOWS u BEGIN DECLARE EXIT HANDLER FOR SQLEXCEPTION BEGIN ROLLBACK; END; SET @a = 1; END
    2 1:142 Read SELECT 1
    ");
    check!(MySql, "CREATE EVENT IF NOT EXISTS e ON SCHEDULE EVERY 1 DAY DO BEGIN DELETE FROM t; END; CREATE EVENT f ON SCHEDULE EVERY 1 HOUR DO DELETE FROM t; SELECT 1", @r"
    1 1:1 ImplicitCommit CREATE EVENT IF NOT EXISTS e ON SCHEDULE EVERY 1 DAY DO BEGIN DELETE FROM t; END
    2 1:83 ImplicitCommit CREATE EVENT f ON SCHEDULE EVERY 1 HOUR DO DELETE FROM t
    3 1:141 Read SELECT 1
    ");
    check!(MySql, "CREATE FUNCTION f() RETURNS INT DETERMINISTIC RETURN CASE WHEN 1 THEN 2 END; CREATE FUNCTION IF NOT EXISTS g RETURNS INTEGER SONAME 'x'; SELECT 1", @r"
    1 1:1 ImplicitCommit CREATE FUNCTION f() RETURNS INT DETERMINISTIC RETURN CASE WHEN 1 THEN 2 END
    2 1:78 ImplicitCommit CREATE FUNCTION IF NOT EXISTS g RETURNS INTEGER SONAME 'x'
    3 1:138 Read SELECT 1
    ");
    check!(MySql, "BEGIN NOT ATOMIC SELECT 1; IF 1 THEN SELECT 2; END IF; END; BEGIN; SELECT 1; COMMIT; FOR i IN 1..3 DO SELECT i; END FOR; a: BEGIN NOT ATOMIC COMMIT; END a; SELECT 3", @r"
    1 1:1 Write BEGIN NOT ATOMIC SELECT 1; IF 1 THEN SELECT 2; END IF; END
    2 1:61 Begin BEGIN
    3 1:68 Read SELECT 1
    4 1:78 Commit COMMIT
    5 1:86 Write FOR i IN 1..3 DO SELECT i; END FOR
    6 1:122 ImplicitCommit a: BEGIN NOT ATOMIC COMMIT; END a
    7 1:157 Read SELECT 3
    ");
    check!(MySql, "CREATE TABLE t (begin int, end int); XA BEGIN 'x'; XA END 'x'; SELECT 1", @r"
    1 1:1 ImplicitCommit CREATE TABLE t (begin int, end int)
    2 1:38 NoTransaction XA BEGIN 'x'
    3 1:52 NoTransaction XA END 'x'
    4 1:64 Read SELECT 1
    ");
    check!(MySql, "SELECT 1;\nCREATE PROCEDURE p() BEGIN IF 1 THEN SELECT 1; END;", @r"
    2:22 the block that begins here is never ended
    hint: each BEGIN, IF, CASE, LOOP, WHILE, REPEAT and FOR needs its own END (END IF, END LOOP...)
    ");
    check!(MySql, "CREATE PROCEDURE p() IF NOT done THEN SELECT 1; END IF; CREATE DEFINER=CURRENT_USER() PROCEDURE IF NOT EXISTS q() SELECT 1 FROM t WHERE (a) FOR UPDATE; SELECT 2", @r"
    1 1:1 ImplicitCommit CREATE PROCEDURE p() IF NOT done THEN SELECT 1; END IF
    2 1:57 ImplicitCommit CREATE DEFINER=CURRENT_USER() PROCEDURE IF NOT EXISTS q() SELECT 1 FROM t WHERE (a) FOR UPDATE
    3 1:153 Read SELECT 2
    ");
}

#[test]
fn sqlite_rules() {
    check!(Sqlite, r#"SELECT "a;""b", [c;d], `e;``f`, 'g;''h\'; SELECT 2"#, @r#"
    1 1:1 Read SELECT "a;""b", [c;d], `e;``f`, 'g;''h\'
    2 1:43 Read SELECT 2
    "#);
    check!(Sqlite, "CREATE TEMP TRIGGER t AFTER INSERT ON x WHEN CASE 1 WHEN 1 THEN 1 END BEGIN UPDATE y SET a = CASE b WHEN 1 THEN 2 END; DELETE FROM z; END; SELECT 1", @r"
    1 1:1 Define CREATE TEMP TRIGGER t AFTER INSERT ON x WHEN CASE 1 WHEN 1 THEN 1 END BEGIN UPDATE y SET a = CASE b WHEN 1 THEN 2 END; DELETE FROM z; END
    2 1:140 Read SELECT 1
    ");
    check!(Sqlite, "CREATE TRIGGER IF NOT EXISTS t AFTER INSERT ON x BEGIN SELECT 1; end ; BEGIN; SELECT 1; END; SELECT 2", @r"
    1 1:1 Define CREATE TRIGGER IF NOT EXISTS t AFTER INSERT ON x BEGIN SELECT 1; end
    2 1:72 Begin BEGIN
    3 1:79 Read SELECT 1
    4 1:89 Commit END
    5 1:94 Read SELECT 2
    ");
    check!(Sqlite, "SELECT 1;\nCREATE TRIGGER t AFTER INSERT ON x\nBEGIN SELECT CASE 1 WHEN 1 THEN 2 END;", @r"
    3:1 the trigger body that begins here is never ended
    hint: end each statement of the body with a semicolon, and the body with END
    ");
    check!(Sqlite, "SELECT [a", @r"
    1:8 the quoted name that begins here is never closed
    hint: close it; a closing quote inside the name is written twice
    ");
    check!(Sqlite, "SELECT 1 /* a /* b */; SELECT 2", @r"
    1 1:1 Read SELECT 1
    2 1:24 Read SELECT 2
    ");
}

#[test]
fn sql_server_batches() {
    check!(SqlServer, "SELECT 1; SELECT 2\nGO\nCREATE PROCEDURE p AS BEGIN SELECT 1; END\ngo -- done\n\tGo 5 \r\nSELECT ']', [a]]\nGO\n], 'x\nGO\n' /* /* \nGO\n*/ \nGO\n*/\n  GO 3 /* x */\nSELECT 4", @r"
    1 1:1 Read SELECT 1; SELECT 2
    2 3:1 Define CREATE PROCEDURE p AS BEGIN SELECT 1; END
    3 6:1 Read SELECT ']', [a]]⏎GO⏎], 'x⏎GO⏎' x3
    4 16:1 Read SELECT 4
    ");
    check!(SqlServer, "GO\nGO\n-- c\nGO\nSELECT 1\nGO;\nSELECT 2\nGOTO x\ngo_live\nGO home\n /* c */ GO", @r"
    1 5:1 Read SELECT 1
    2 7:1 Read SELECT 2⏎GOTO x⏎go_live⏎GO home⏎ /* c */ GO
    ");
    check!(SqlServer, "SELECT 1\nGO 0", @r"
    2:1 this GO has a count that cannot be
    hint: the count is a whole number from 1 to 4294967295
    ");
    check!(SqlServer, "SELECT 1\nGO 99999999999", @r"
    2:1 this GO has a count that cannot be
    hint: the count is a whole number from 1 to 4294967295
    ");
    check!(SqlServer, "SELECT [a]] FROM t", @r"
    1:8 the quoted name that begins here is never closed
    hint: close it; a closing quote inside the name is written twice
    ");
    check!(SqlServer, "SELECT 1 -- a\nGO\n\nBEGIN TRAN\nGO\nUPDATE t SET a = 1\nGO\nCOMMIT TRANSACTION;\nGO\nBEGIN TRAN; DELETE t; COMMIT\nGO\nSET NOCOUNT ON\nGO\nSET NOCOUNT ON SELECT 1 INSERT t VALUES (1)", @r"
    1 1:1 Read SELECT 1
    2 4:1 Begin BEGIN TRAN
    3 6:1 Write UPDATE t SET a = 1
    4 8:1 Commit COMMIT TRANSACTION;
    5 10:1 ImplicitCommit BEGIN TRAN; DELETE t; COMMIT
    6 12:1 Session SET NOCOUNT ON
    7 14:1 Write SET NOCOUNT ON SELECT 1 INSERT t VALUES (1)
    ");
}

#[test]
fn oracle_blocks() {
    check!(Oracle, "SELECT q'[it's;]', nq'{;'}', Q'!;'!', xq';' FROM dual;\nBEGIN NULL; END;\n/\nDECLARE x INT; BEGIN COMMIT; END;\n / \nSELECT 1\n/\nSELECT 2;\n/\nSELECT 3", @r"
    1 1:1 Read SELECT q'[it's;]', nq'{;'}', Q'!;'!', xq';' FROM dual
    2 2:1 Write BEGIN NULL; END;
    3 4:1 ImplicitCommit DECLARE x INT; BEGIN COMMIT; END;
    4 6:1 Read SELECT 1
    5 8:1 Read SELECT 2
    6 10:1 Read SELECT 3
    ");
    check!(Oracle, "CREATE OR REPLACE EDITIONABLE PACKAGE BODY p AS x INT; END;\n/\nCREATE TABLE t (a INT); CREATE TYPE t AS OBJECT (a INT);\n/\r\n<<l>> BEGIN NULL; END;\n/\nALTER SESSION SET x = 1;\nSELECT 4\n/ 2 FROM dual", @r"
    1 1:1 ImplicitCommit CREATE OR REPLACE EDITIONABLE PACKAGE BODY p AS x INT; END;
    2 3:1 ImplicitCommit CREATE TABLE t (a INT)
    3 3:25 ImplicitCommit CREATE TYPE t AS OBJECT (a INT);
    4 5:1 Write <<l>> BEGIN NULL; END;
    5 7:1 Session ALTER SESSION SET x = 1
    6 8:1 Read SELECT 4⏎/ 2 FROM dual
    ");
    check!(Oracle, "SELECT q'[a]' FROM dual; SELECT q'[a'", @r"
    1:34 the string that begins here is never closed
    hint: close it with the same quote; a quote inside the string is written twice
    ");
    check!(Oracle, "WITH FUNCTION f RETURN INT IS BEGIN RETURN 1; END; SELECT f FROM dual\n/\nWITH a AS (SELECT 1 FROM dual) SELECT * FROM a;", @r"
    1 1:1 Read WITH FUNCTION f RETURN INT IS BEGIN RETURN 1; END; SELECT f FROM dual
    2 3:1 Read WITH a AS (SELECT 1 FROM dual) SELECT * FROM a
    ");
}

#[test]
fn generic_rules() {
    check!(Generic, "SELECT 'a;''b\\', \"c;\"; SELECT 2 /* a /* ; */; START TRANSACTION; COMMIT", @r#"
    1 1:1 Read SELECT 'a;''b\', "c;"
    2 1:24 Read SELECT 2
    3 1:47 Begin START TRANSACTION
    4 1:66 Commit COMMIT
    "#);
}

#[test]
fn deep_and_long_scripts_take_no_stack() {
    let deep = |head: &str, piece: &str, count: usize| format!("{head}{}", piece.repeat(count));
    for (head, piece) in [
        ("CREATE ", "()"),
        ("CREATE PROCEDURE p() ", "BEGIN "),
        ("CREATE PROCEDURE p() SELECT ", "CASE "),
        ("CREATE RULE r DO ", "("),
        ("CREATE FUNCTION f() BEGIN ATOMIC ", "CASE "),
        ("", "/*"),
        ("", "("),
        ("", "/* */ "),
        ("SELECT ", "1$1$"),
        ("SELECT ", "a$$ "),
        ("SELECT E''", "\n''"),
        ("", "SET STATEMENT a=1 FOR "),
        ("", "BEGIN NOT ATOMIC EXECUTE IMMEDIATE 'BEGIN NOT ATOMIC EXECUTE IMMEDIATE \""),
        ("XA START 'x';", "SET a = 1;XA END 'x';"),
        ("", "SET a = 1; VACUUM;"),
        ("", "BEGIN;COMMIT AND CHAIN;"),
    ] {
        for dialect in ALL {
            let script = deep(head, piece, 100_000);
            if let Ok(statements) = split(dialect, &script) {
                assert!(
                    plan(dialect, &script, &statements, false).is_ok_and(|segments| segments.len() <= statements.len())
                        || piece.contains("BEGIN")
                );
            }
        }
    }
}
