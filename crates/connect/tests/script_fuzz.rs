//! Mutates a corpus of nasty scripts and checks the invariants of splitting: 20,000 times, or for BACKSTOP_FUZZ_SECONDS. The seed is
//! printed, and BACKSTOP_FUZZ_SEED sets it.

mod script_invariants;

use script_invariants::{DIALECTS, PIECES, check_invariants};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

/// Scripts with every construct that has a rule of its own.
const CORPUS: &[&str] = &[
    "SELECT 'it''s', E'a\\'b', U&\"x\", $$a;b$$, $t$ $$ ; $t$; -- c\n/* a /* b */ c */ INSERT INTO t VALUES (:a, $1);\n",
    "CREATE OR REPLACE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT CASE a WHEN 1 THEN 2 END; SELECT 1 AS end; END; SELECT f();",
    "CREATE RULE r AS ON INSERT TO t DO ALSO (INSERT INTO u VALUES (1); DELETE FROM v); BEGIN; SELECT 1; COMMIT AND CHAIN; SELECT 2; END;",
    "COPY t (a) FROM STDIN WITH (FORMAT csv); -- data\n1,';'\n\\.x\n\\.\nDO $x$ BEGIN COMMIT; END $x$; VACUUM;",
    "DELIMITER //\nCREATE PROCEDURE p() BEGIN SELECT 1; END//\nDELIMITER ;\n/*!40101 SET NAMES utf8 */; # c\nSELECT \"a\\\"b\", `c``d` -- e\n;",
    "CREATE DEFINER=`a`@`b` TRIGGER t BEFORE INSERT ON x FOR EACH ROW l: BEGIN DECLARE EXIT HANDLER FOR NOT FOUND BEGIN END; IF a THEN SET b = IF(c, 1, 2); \
     ELSEIF d THEN REPEAT SET e = REPEAT('x', 2); UNTIL CASE f WHEN 1 THEN 2 END END REPEAT; END IF; CASE g WHEN 1 THEN SELECT 1; END CASE; END; XA START 'x'; XA COMMIT 'x';",
    "BEGIN NOT ATOMIC FOR i IN 1..2 DO WHILE a DO LOOP LEAVE b; END LOOP; END WHILE; END FOR; END; SET a = 1; CREATE TABLE t (a int); COMMIT;",
    "CREATE TEMP TRIGGER t AFTER INSERT ON [x;y] BEGIN UPDATE z SET a = CASE b WHEN 1 THEN 2 END; END; PRAGMA main.user_version = 1; ATTACH 'x' AS y;",
    "SELECT [a]]b], 'c' /* GO /* \nGO\n*/ */\nGO 3 -- c\nBEGIN TRAN\nGO\nDELETE t\nGO\nCOMMIT\ngo\n",
    "CREATE OR REPLACE PACKAGE BODY p AS x INT; END;\n/\nSELECT q'[it's;]', nq'(a)' FROM dual;\n/\n<<l>>\nDECLARE x INT; BEGIN COMMIT; END;\n/\n",
    "\u{feff}SELECT 'é', \"à\", `ù`;\r\nSELECT 1 -- é\r\n;\r\n/* ü */ SELECT :été, a::b, c[1:2], @d := 1, :a;\r\n",
];

/// A small generator (SplitMix64, Steele and others 2014), so that a seed means the same for ever.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound.max(1) as u64).expect("it is below a usize")
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.below(from.len())]
    }

    /// A character boundary of the text.
    fn place(&mut self, text: &str) -> usize {
        let mut at = self.below(text.len() + 1);
        while !text.is_char_boundary(at) {
            at -= 1;
        }
        at
    }
}

fn mutate(script: &mut String, random: &mut Random) {
    let (one, two) = (random.place(script), random.place(script));
    let (from, to) = (one.min(two), one.max(two));
    match random.below(7) {
        0 => script.truncate(from),
        1 => script.replace_range(from..to, ""),
        2 => {
            let copied = script[from..to].to_owned();
            script.insert_str(from, &copied);
        }
        3 => script.insert_str(from, random.pick(CORPUS)),
        4 => script.replace_range(from..to, random.pick(PIECES)),
        _ => script.insert_str(from, random.pick(PIECES)),
    }
    let end = (0..=script.len().min(4096)).rev().find(|at| script.is_char_boundary(*at)).expect("0 is one");
    script.truncate(end);
}

#[test]
fn mutated_scripts_are_split_or_refused() {
    let seconds =
        std::env::var("BACKSTOP_FUZZ_SECONDS").ok().map(|seconds| seconds.parse().expect("BACKSTOP_FUZZ_SECONDS is a number"));
    let set = std::env::var("BACKSTOP_FUZZ_SEED").ok().map(|seed| seed.parse().expect("BACKSTOP_FUZZ_SEED is a number"));
    // Without a time to fill, every run is the same.
    let seed = set.unwrap_or_else(|| if seconds.is_some() { RandomState::new().build_hasher().finish() } else { 1 });
    println!("BACKSTOP_FUZZ_SEED={seed}");
    let started = Instant::now();
    let goes_on = |run: u64| seconds.map_or(run < 20_000, |seconds| started.elapsed() < Duration::from_secs(seconds));
    let mut random = Random(seed);
    let mut run = 0;
    while goes_on(run) {
        let mut script = random.pick(CORPUS).to_owned();
        for _ in 0..random.below(12) {
            mutate(&mut script, &mut random);
        }
        for dialect in DIALECTS {
            let result = catch_unwind(AssertUnwindSafe(|| check_invariants(dialect, &script)));
            assert!(result.is_ok(), "run {run} of seed {seed}, {dialect:?}: {script:?}");
        }
        run += 1;
    }
    println!("{run} scripts in {:?}", started.elapsed());
}
