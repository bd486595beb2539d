//! Secrets that commands are given as options, within a line: `mysql -pX`, `--password X`, `curl -u a:b`.
//!
//! It must not know what the file means: a line is words, and what behind a known command looks like such an option is one.

use super::inline::value_at;
use backstop_project::is_secret_key;

/// Ends of long options that name a secret, and tell where it is instead of what it is.
const PLACES: [&str; 6] = ["file", "path", "stdin", "env", "name", "prompt"];

/// Commands whose short options give secrets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Command {
    /// `-pSECRET`; `-p` alone asks for it.
    MySql,
    /// `-u USER:SECRET`.
    Curl,
    /// `-p SECRET`.
    SshPass,
    /// `-P SECRET`.
    SqlCmd,
    /// `-a SECRET`.
    Redis,
}

impl Command {
    fn of(word: &str) -> Option<Self> {
        let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let word = word.trim_end_matches(['"', '\'', ',', '`']);
        let name = &word[word.trim_end_matches(is_name).len()..];
        match name {
            "curl" => Some(Self::Curl),
            "sshpass" => Some(Self::SshPass),
            "sqlcmd" | "bcp" => Some(Self::SqlCmd),
            "redis-cli" => Some(Self::Redis),
            _ if ["mysql", "mariadb"].iter().any(|program| name.starts_with(program)) => Some(Self::MySql),
            _ => None,
        }
    }
}

/// What an option gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gives {
    /// A secret.
    Secret,
    /// A name, and behind a colon a secret.
    Pair,
}

/// An option, as far as it is the word itself.
struct Opt {
    gives: Gives,
    /// How much of the word is not the value.
    length: usize,
    /// The value may be the next word.
    may_be_apart: bool,
}

impl Opt {
    fn of(word: &str, command: Option<Command>) -> Option<Self> {
        if let Some(long) = word.strip_prefix("--") {
            let key = long.split('=').next().unwrap_or_default().trim_end_matches(['"', '\'', ',', ']', ')']);
            let is_user = command == Some(Command::Curl) && matches!(key, "user" | "proxy-user");
            let is_place = PLACES.iter().any(|place| key.rsplit(['-', '_']).next() == Some(place));
            let gives = match (is_user, is_secret_key(key) && !is_place) {
                (true, _) => Gives::Pair,
                (false, true) => Gives::Secret,
                (false, false) => return None,
            };
            let length = if long.contains('=') { 3 + key.len() } else { word.len() };
            return Some(Self { gives, length, may_be_apart: true });
        }
        let (letters, gives, may_be_apart): (&[&str], _, _) = match command? {
            Command::MySql => (&["-p"], Gives::Secret, false),
            Command::Curl => (&["-u", "-U"], Gives::Pair, true),
            Command::SshPass => (&["-p"], Gives::Secret, true),
            Command::SqlCmd => (&["-P"], Gives::Secret, true),
            Command::Redis => (&["-a"], Gives::Secret, true),
        };
        let letter = letters.iter().find(|letter| word.starts_with(**letter))?;
        let rest = word[letter.len()..].trim_end_matches(['"', '\'', ',', ']', ')']);
        // As a word of a list the quote behind it ends it.
        let length = if rest.is_empty() { word.len() } else { letter.len() };
        Some(Self { gives, length, may_be_apart })
    }
}

/// The line with such values masked by this.
pub(super) fn masked(line: &str, mask: &str) -> String {
    let mut cleaned = String::with_capacity(line.len());
    let mut done = 0;
    for (begin, end) in found(line) {
        if begin >= done {
            cleaned.push_str(&line[done..begin]);
            cleaned.push_str(mask);
            done = end;
        }
    }
    cleaned + &line[done..]
}

/// Where they stand, in order.
fn found(line: &str) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    // A comment of SQL.
    if !line.contains('-') || line.trim_start().starts_with("--") {
        return found;
    }
    let mut command = None;
    let mut awaited = None;
    for (at, word) in words(line) {
        // As it stands in a list or in a text with quotes.
        let bare = word.trim_start_matches(['"', '\'', '[', '(', ',']);
        let from = at + word.len() - bare.len();
        if let Some(gives) = awaited.take()
            && !bare.starts_with('-')
        {
            found.extend(value(line, at, gives));
        }
        if let Some(option) = Opt::of(bare, command) {
            if option.length < bare.len() {
                found.extend(value(line, from + option.length, option.gives));
            } else if option.may_be_apart {
                awaited = Some(option.gives);
            }
        }
        command = Command::of(word).or(command);
        if word.ends_with(';') || matches!(word, "|" | "||" | "&&" | "&") {
            command = None;
        }
    }
    found
}

/// The secret in what an option gives.
fn value(line: &str, at: usize, gives: Gives) -> Option<(usize, usize)> {
    let (begin, end) = value_at(line, at, 1)?;
    match gives {
        Gives::Secret => Some((begin, end)),
        Gives::Pair => {
            let colon = line[begin..end].find(':')?;
            let begin = begin + colon + 1;
            (begin < end && !line[begin..end].starts_with(['$', '{'])).then_some((begin, end))
        }
    }
}

/// Words with their places.
fn words(line: &str) -> impl Iterator<Item = (usize, &str)> {
    let base = line.as_ptr() as usize;
    line.split_ascii_whitespace().map(move |word| (word.as_ptr() as usize - base, word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_commands_are_given_is_masked() {
        for (line, told) in [
            ("shell: mysql -pX -h db shop", "shell: mysql -p*** -h db shop"),
            ("/usr/bin/mysqldump -u ann -p'it is' shop | gzip -p2", "/usr/bin/mysqldump -u ann -p'***' shop | gzip -p2"),
            ("command: [mariadb, -psword, shop]", "command: [mariadb, -p***, shop]"),
            ("run([\"mysql\", \"-psword\", \"-P3306\"])", "run([\"mysql\", \"-p***\", \"-P3306\"])"),
            ("mysql --password sword --user=ann", "mysql --password *** --user=ann"),
            ("tool --api-token \"a b\" --verbose", "tool --api-token \"***\" --verbose"),
            ("run([\"tool\", \"--password\", \"sword\"])", "run([\"tool\", \"--password\", \"***\"])"),
            ("curl -u a:b https://h/", "curl -u a:*** https://h/"),
            ("curl -sS -uann:sword 'https://h/'", "curl -sS -uann:*** 'https://h/'"),
            ("shell: \"curl --user 'ann:s d' https://h/\"", "shell: \"curl --user 'ann:***' https://h/\""),
            ("sshpass -p sword ssh -p 2222 h", "sshpass -p *** ssh -p *** h"),
            ("sqlcmd -S h -U sa -P 'Sword!'; psql -p5432", "sqlcmd -S h -U sa -P '***'; psql -p5432"),
            ("redis-cli -a sword get x", "redis-cli -a *** get x"),
        ] {
            assert_eq!(masked(line, "***"), told, "{line}");
        }
    }

    #[test]
    fn what_is_no_secret_stays() {
        for line in [
            "psql -p5432 -U ann",
            "mysql -p shop",
            "mysql -p$PW shop; mysql -p\"${PW}\" shop; mysql -p'{{ var.value.password }}' x",
            "tool --password $PW --token \"${TOKEN}\" --secret {{ var.value.secret }}",
            "tool --password-file secrets.txt --token-path /run/t docker --password-stdin registry",
            "tool --password --verbose",
            "curl -u ann https://h/",
            "curl -u \"ann:$PW\" https://h/ && curl -u ann:{{ var.value.password }} https://h/",
            "--password of the users is hashed",
            "SELECT a - password -- token table",
            "mysql x | sort -pfoo",
        ] {
            assert_eq!(masked(line, "***"), line);
        }
    }

    #[test]
    fn a_long_line_takes_no_longer_than_its_bytes() {
        let many = "mysql -p --password $PW 'a' --token {{ x }} db_password=:x by ".repeat(100_000);
        assert_eq!(masked(&many, "***"), many);
    }
}
