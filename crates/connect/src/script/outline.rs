//! A statement of a stranger in a few words that can hold none of its values.

/// Words that a statement may begin with. Others are not repeated: who knows what they are.
const VERBS: &[&str] = &[
    "ALTER",
    "ANALYZE",
    "BEGIN",
    "CALL",
    "CHECKPOINT",
    "CLUSTER",
    "COMMENT",
    "COMMIT",
    "COPY",
    "CREATE",
    "DELETE",
    "DISCARD",
    "DO",
    "DROP",
    "END",
    "EXECUTE",
    "EXPLAIN",
    "FETCH",
    "FLUSH",
    "GRANT",
    "INSERT",
    "LISTEN",
    "LOAD",
    "LOCK",
    "MERGE",
    "OPTIMIZE",
    "PREPARE",
    "REFRESH",
    "REINDEX",
    "RELEASE",
    "RENAME",
    "REPLACE",
    "RESET",
    "REVOKE",
    "ROLLBACK",
    "SAVEPOINT",
    "SELECT",
    "SET",
    "SHOW",
    "START",
    "TABLE",
    "TRUNCATE",
    "UNLOCK",
    "UPDATE",
    "USE",
    "VACUUM",
    "VALUES",
    "WITH",
];
/// Words that stand between the verb and the name of what it is about.
const FILLERS: &[&str] = &[
    "CONCURRENTLY",
    "DELAYED",
    "EXISTS",
    "HIGH_PRIORITY",
    "IF",
    "IGNORE",
    "INTO",
    "LOW_PRIORITY",
    "NOT",
    "ONLY",
    "OR",
    "QUICK",
    "REPLACE",
    "TABLE",
    "TABLES",
    "TEMP",
    "TEMPORARY",
    "UNIQUE",
    "UNLOGGED",
];
/// Of what else than a table ALTER, CREATE and DROP may be told. Not of users: what follows may be their passwords.
const KINDS: &[&str] = &["INDEX", "MATERIALIZED", "SCHEMA", "SEQUENCE", "TRIGGER", "VIEW", "FUNCTION", "PROCEDURE"];
/// Characters of a name, at most.
const NAME_CHARACTERS_MAX: usize = 60;

/// What a statement does and to what: `UPDATE sales`, `SELECT FROM orders`, `CREATE INDEX`. Only words that this crate knows and names in
/// the place of a table are repeated, no literal ever, so that the texts of other people's sessions can be shown. The text may be cut off.
pub fn outline(sql: &str) -> String {
    let mut words = Words { rest: sql };
    let first = match words.next() {
        Some(Word::Plain(word)) => word.to_ascii_uppercase(),
        Some(Word::Quoted(_) | Word::Other) | None => return "a statement".to_owned(),
    };
    if !VERBS.contains(&first.as_str()) {
        return "a statement".to_owned();
    }
    let target = match first.as_str() {
        "SELECT" | "DELETE" => words.after("FROM").map(|name| format!("FROM {name}")),
        "INSERT" | "REPLACE" | "MERGE" => words.after("INTO"),
        "UPDATE" | "TRUNCATE" | "LOCK" | "COPY" | "VACUUM" | "ANALYZE" | "REINDEX" | "REFRESH" | "CLUSTER" | "OPTIMIZE"
        | "TABLE" => words.name(),
        "ALTER" | "CREATE" | "DROP" => return with(&first, words.definition()),
        _ => None,
    };
    with(&first, target)
}

fn with(verb: &str, target: Option<String>) -> String {
    target.map_or_else(|| verb.to_owned(), |target| format!("{verb} {target}"))
}

enum Word<'a> {
    Plain(&'a str),
    /// With its quotes, which are not those of strings.
    Quoted(&'a str),
    /// A literal, a number, punctuation.
    Other,
}

struct Words<'a> {
    rest: &'a str,
}

impl<'a> Words<'a> {
    /// The name behind a keyword, wherever that stands.
    fn after(&mut self, keyword: &str) -> Option<String> {
        while let Some(word) = self.next() {
            if matches!(word, Word::Plain(plain) if plain.eq_ignore_ascii_case(keyword)) {
                return self.name();
            }
        }
        None
    }

    /// What a definition is about: `TABLE sales`, `INDEX`.
    fn definition(&mut self) -> Option<String> {
        loop {
            let Some(Word::Plain(word)) = self.next() else { return None };
            let upper = word.to_ascii_uppercase();
            if upper == "TABLE" {
                return Some(with("TABLE", self.name()));
            }
            if KINDS.contains(&upper.as_str()) {
                return Some(upper);
            }
            if !FILLERS.contains(&upper.as_str()) {
                return None;
            }
        }
    }

    /// A name, with its schema, past the words that may stand before it.
    fn name(&mut self) -> Option<String> {
        let mut name = String::new();
        loop {
            match self.next()? {
                Word::Plain(word) if name.is_empty() && FILLERS.contains(&word.to_ascii_uppercase().as_str()) => continue,
                Word::Plain(word) | Word::Quoted(word) => name.push_str(word),
                Word::Other => return None,
            }
            match self.rest.strip_prefix('.') {
                Some(rest) if name.len() <= NAME_CHARACTERS_MAX => {
                    name.push('.');
                    self.rest = rest;
                }
                _ => break,
            }
        }
        // What is that long is no name that anybody would know again.
        (name.chars().count() <= NAME_CHARACTERS_MAX).then_some(name)
    }

    fn skip_blank(&mut self) {
        loop {
            self.rest = self.rest.trim_start();
            let end = if self.rest.starts_with("--") || self.rest.starts_with('#') {
                self.rest.find('\n').unwrap_or(self.rest.len())
            } else if self.rest.starts_with("/*") {
                self.rest.find("*/").map_or(self.rest.len(), |end| end + 2)
            } else {
                return;
            };
            self.rest = &self.rest[end..];
        }
    }

    fn take(&mut self, length: usize) -> &'a str {
        let (taken, rest) = self.rest.split_at(length);
        self.rest = rest;
        taken
    }
}

impl<'a> Iterator for Words<'a> {
    type Item = Word<'a>;

    fn next(&mut self) -> Option<Word<'a>> {
        self.skip_blank();
        let first = self.rest.chars().next()?;
        Some(match first {
            '"' | '`' => match self.rest[1..].find(first) {
                Some(end) => Word::Quoted(self.take(end + 2)),
                None => {
                    self.rest = "";
                    Word::Other
                }
            },
            '\'' => {
                self.skip_string();
                Word::Other
            }
            '$' => {
                self.skip_dollars();
                Word::Other
            }
            letter if letter.is_alphabetic() || letter == '_' => {
                let end = self.rest.find(|c: char| !c.is_alphanumeric() && c != '_' && c != '$').unwrap_or(self.rest.len());
                Word::Plain(self.take(end))
            }
            digit if digit.is_ascii_digit() => {
                let end = self.rest.find(|c: char| !c.is_alphanumeric() && c != '.').unwrap_or(self.rest.len());
                self.take(end);
                Word::Other
            }
            other => {
                self.take(other.len_utf8());
                Word::Other
            }
        })
    }
}

impl Words<'_> {
    /// Past a string. Dialects differ in what a backslash means: it is taken to escape, so that too much is left out rather than too little.
    fn skip_string(&mut self) {
        let mut escaped = false;
        for (at, letter) in self.rest.char_indices().skip(1) {
            match letter {
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                '\'' => {
                    self.rest = &self.rest[at + 1..];
                    return;
                }
                _ => {}
            }
        }
        self.rest = "";
    }

    /// Past `$tag$ ... $tag$`, or a parameter.
    fn skip_dollars(&mut self) {
        let tag = self.rest[1..].find('$').map(|end| &self.rest[..end + 2]);
        let is_tag = |tag: &&str| tag[1..tag.len() - 1].chars().all(|c| c.is_alphanumeric() || c == '_');
        match tag.filter(is_tag) {
            Some(tag) => {
                let body = &self.rest[tag.len()..];
                self.rest = body.find(tag).map_or("", |end| &body[end + tag.len()..]);
            }
            None => {
                self.take(1);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::outline;

    #[test]
    fn an_outline_says_what_is_done_to_what() {
        let outlines = [
            ("UPDATE sales SET v = 'secret' WHERE id = 7", "UPDATE sales"),
            ("update only public.\"Sales\" set v = 1", "UPDATE public.\"Sales\""),
            ("/* job */ INSERT INTO `db`.`t` (a) VALUES ('secret')", "INSERT `db`.`t`"),
            ("DELETE FROM t WHERE token = 'secret'", "DELETE FROM t"),
            ("SELECT 'FROM secret', $$ FROM secret2 $$ FROM orders o", "SELECT FROM orders"),
            ("SELECT pg_sleep(10)", "SELECT"),
            ("ALTER USER marie PASSWORD 'secret'", "ALTER"),
            ("CREATE UNIQUE INDEX CONCURRENTLY i ON t (a)", "CREATE INDEX"),
            ("DROP TABLE IF EXISTS old.t", "DROP TABLE old.t"),
            ("SET PASSWORD = 'secret'", "SET"),
            ("COPY t FROM PROGRAM 'curl secret'", "COPY t"),
            ("hunter2", "a statement"),
            ("'secret'", "a statement"),
            ("", "a statement"),
        ];
        for (sql, expected) in outlines {
            assert_eq!(outline(sql), expected, "{sql}");
        }
    }

    #[test]
    fn what_is_cut_off_anywhere_shows_no_value() {
        let sql = "WITH x AS (SELECT E'it\\'s FROM hidden' AS a) /* FROM hidden */ UPDATE t SET a = $q$ FROM hidden $q$, b = 'hidden''s'";
        for end in (0..=sql.len()).filter(|end| sql.is_char_boundary(*end)) {
            assert!(!outline(&sql[..end]).contains("hidden"), "{}", outline(&sql[..end]));
        }
        let sql = "SELECT 'it''s FROM hidden', \"FROM hidden\" FROM t";
        for end in 0..=sql.len() {
            assert!(!outline(&sql[..end]).contains("hidden"), "{}", outline(&sql[..end]));
        }
    }
}
