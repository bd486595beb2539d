//! Statements with semicolons inside: routine bodies, triggers and rules. The cursor is taken past the body, so that the next
//! delimiter is the one that ends the statement.

use super::fault::{Fault, FaultKind};
use super::lexer::{Cursor, Token, TokenKind};

/// Goes past a BEGIN ATOMIC body, or past the actions of a rule.
pub(super) fn postgresql(cursor: &mut Cursor<'_>) -> Result<(), Fault> {
    let standing = cursor.standing();
    let kind = object(cursor, &["OR", "REPLACE"])?;
    match kind {
        Some("FUNCTION" | "PROCEDURE") => atomic_body(cursor),
        Some("RULE") => rule_actions(cursor),
        Some(_) | None => {
            cursor.return_to(standing);
            Ok(())
        }
    }
}

/// Goes past the body of a trigger: it ends at an END that follows a semicolon, as SQLite's own shell has it. So the END of a CASE,
/// which never follows one, needs no counting.
pub(super) fn sqlite(cursor: &mut Cursor<'_>) -> Result<(), Fault> {
    let standing = cursor.standing();
    if object(cursor, &["TEMP", "TEMPORARY"])? != Some("TRIGGER") {
        cursor.return_to(standing);
        return Ok(());
    }
    let Some(begin) = to_word(cursor, "BEGIN")? else { return Ok(()) };
    let mut after_semicolon = false;
    loop {
        let token = cursor.next_token()?;
        match token.kind {
            TokenKind::End => return Err(Fault { at: begin.start, kind: FaultKind::TriggerBody }),
            TokenKind::Word if after_semicolon && cursor.keyword(token).as_str() == "END" => return Ok(()),
            TokenKind::Word | TokenKind::Number | TokenKind::Quoted | TokenKind::Byte(_) => {}
        }
        after_semicolon = token.kind == TokenKind::Byte(b';');
    }
}

/// What a CREATE statement creates, if it is something that can have a body; the cursor is after the word.
fn object(cursor: &mut Cursor<'_>, passed_over: &[&str]) -> Result<Option<&'static str>, Fault> {
    const OBJECTS: [&str; 4] = ["FUNCTION", "PROCEDURE", "RULE", "TRIGGER"];
    let first = cursor.next_token()?;
    if cursor.keyword(first).as_str() != "CREATE" {
        return Ok(None);
    }
    loop {
        let token = cursor.next_token()?;
        let keyword = cursor.keyword(token);
        if !passed_over.contains(&keyword.as_str()) {
            return Ok(OBJECTS.into_iter().find(|object| *object == keyword.as_str()));
        }
    }
}

/// Goes past the next such word; stays before the semicolon when that comes first.
fn to_word(cursor: &mut Cursor<'_>, word: &str) -> Result<Option<Token>, Fault> {
    loop {
        let standing = cursor.standing();
        let token = cursor.next_token()?;
        match token.kind {
            TokenKind::Byte(b';') | TokenKind::End => {
                cursor.return_to(standing);
                return Ok(None);
            }
            TokenKind::Word if cursor.keyword(token).as_str() == word => return Ok(Some(token)),
            TokenKind::Word | TokenKind::Number | TokenKind::Quoted | TokenKind::Byte(_) => {}
        }
    }
}

fn atomic_body(cursor: &mut Cursor<'_>) -> Result<(), Fault> {
    let begin = loop {
        let Some(begin) = to_word(cursor, "BEGIN")? else { return Ok(()) };
        if cursor.peek_keyword().as_str() == "ATOMIC" {
            break begin;
        }
    };
    let mut depth = 1_usize;
    // After AS or a dot every keyword is a name.
    let mut is_name = false;
    while depth > 0 {
        let token = cursor.next_token()?;
        let keyword = cursor.keyword(token);
        match (token.kind, keyword.as_str()) {
            (TokenKind::End, _) => return Err(Fault { at: begin.start, kind: FaultKind::AtomicBody }),
            (_, "CASE") if !is_name => depth += 1,
            (_, "END") if !is_name => depth -= 1,
            _ => {}
        }
        is_name = keyword.as_str() == "AS" || token.kind == TokenKind::Byte(b'.');
    }
    Ok(())
}

fn rule_actions(cursor: &mut Cursor<'_>) -> Result<(), Fault> {
    let mut depth = 0_usize;
    let mut opened = 0;
    loop {
        let standing = cursor.standing();
        let token = cursor.next_token()?;
        match token.kind {
            TokenKind::End if depth > 0 => return Err(Fault { at: opened, kind: FaultKind::RuleActions }),
            TokenKind::Byte(b';') | TokenKind::End if depth == 0 => {
                cursor.return_to(standing);
                return Ok(());
            }
            TokenKind::Byte(b'(') => {
                opened = if depth == 0 { token.start } else { opened };
                depth += 1;
            }
            TokenKind::Byte(b')') => depth = depth.saturating_sub(1),
            TokenKind::Word | TokenKind::Number | TokenKind::Quoted | TokenKind::Byte(_) | TokenKind::End => {}
        }
    }
}

/// Goes past the body of a stored routine, trigger or event, or past a compound statement of MariaDB.
pub(super) fn mysql(cursor: &mut Cursor<'_>) -> Result<(), Fault> {
    let standing = cursor.standing();
    let first = cursor.next_token()?;
    let is_compound = match cursor.keyword(first).as_str() {
        "CREATE" => creates_routine(cursor)?,
        "BEGIN" => cursor.peek_keyword().as_str() == "NOT",
        "IF" | "CASE" | "LOOP" | "WHILE" | "REPEAT" | "FOR" => true,
        // A label before a block. Other words are what nearly every statement begins with, and are not looked behind.
        "INSERT" | "UPDATE" | "DELETE" | "REPLACE" | "SELECT" | "SET" => false,
        "" => false,
        _ => cursor.rest().trim_ascii_start().starts_with(b":"),
    };
    if !is_compound {
        cursor.return_to(standing);
        return Ok(());
    }
    let creates = cursor.keyword(first).as_str() == "CREATE";
    if !creates {
        cursor.return_to(standing);
    }
    Blocks { open: Vec::new(), outermost: first.start, at_start: !creates, in_header: creates }.pass(cursor)
}

/// True when CREATE is followed by a routine, trigger or event; the cursor is after that word then.
fn creates_routine(cursor: &mut Cursor<'_>) -> Result<bool, Fault> {
    let mut in_call = false;
    loop {
        let token = cursor.next_token()?;
        match token.kind {
            TokenKind::End | TokenKind::Byte(b';') => return Ok(false),
            // `CURRENT_USER()` is the one thing in parentheses before the kind of the object.
            TokenKind::Byte(b')') if in_call => {}
            _ if in_call => return Ok(false),
            TokenKind::Word | TokenKind::Number | TokenKind::Quoted | TokenKind::Byte(_) => {}
        }
        in_call = token.kind == TokenKind::Byte(b'(');
        match cursor.keyword(token).as_str() {
            "PROCEDURE" | "FUNCTION" | "TRIGGER" | "EVENT" => return Ok(true),
            "TABLE" | "VIEW" | "INDEX" | "DATABASE" | "SCHEMA" | "USER" | "ROLE" | "SERVER" | "SEQUENCE" | "TABLESPACE"
            | "LOGFILE" | "UNIQUE" | "FULLTEXT" | "SPATIAL" | "TEMPORARY" | "PACKAGE" | "RESOURCE" => return Ok(false),
            _ => {}
        }
    }
}

/// What is open inside a body.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Block {
    /// BEGIN, IF, LOOP, WHILE, FOR, CASE as a statement: statements stand in it, and its END begins where a statement could.
    Statements,
    /// REPEAT: its END comes after a condition.
    Repeat,
    /// CASE as an expression: every END in it is its own.
    Expression,
}

/// Follows the blocks of a MySQL or MariaDB body. END, BEGIN and most others are no reserved words there, and IF and REPEAT are
/// functions too, so what counts is whether a statement can begin where the word stands.
struct Blocks {
    open: Vec<Block>,
    /// Where the outermost block begins.
    outermost: usize,
    /// A statement can begin here.
    at_start: bool,
    /// Before the body: parameters, characteristics, schedule.
    in_header: bool,
}

impl Blocks {
    fn pass(mut self, cursor: &mut Cursor<'_>) -> Result<(), Fault> {
        let mut parentheses = 0_usize;
        let mut in_handler = false;
        let mut after_dot = false;
        loop {
            let standing = cursor.standing();
            let token = cursor.next_token()?;
            let keyword = cursor.keyword(token);
            let word = if after_dot { "" } else { keyword.as_str() };
            let was_at_start = self.at_start;
            match token.kind {
                TokenKind::End => {
                    let fault = Fault { at: self.outermost, kind: FaultKind::CompoundBody };
                    return if self.open.is_empty() { Ok(()) } else { Err(fault) };
                }
                TokenKind::Byte(b';') if self.open.is_empty() => {
                    cursor.return_to(standing);
                    return Ok(());
                }
                TokenKind::Byte(b'(') => parentheses += 1,
                TokenKind::Byte(b')') => parentheses = parentheses.saturating_sub(1),
                TokenKind::Word if word == "END" && self.closes(cursor) => {
                    self.open.pop();
                    pass_closing_word(cursor)?;
                    self.at_start = false;
                    if self.open.is_empty() {
                        return Ok(());
                    }
                    continue;
                }
                TokenKind::Word => {
                    self.in_header &= !(was_at_start && begins_plain_statement(word) || word == "RETURN");
                    if let Some(block) = self.opens(word, cursor, parentheses == 0, in_handler) {
                        self.outermost = if self.open.is_empty() { token.start } else { self.outermost };
                        self.open.push(block);
                        self.in_header = false;
                    }
                }
                TokenKind::Number | TokenKind::Quoted | TokenKind::Byte(_) => {}
            }
            in_handler = (in_handler || word == "HANDLER") && token.kind != TokenKind::Byte(b';');
            after_dot = token.kind == TokenKind::Byte(b'.');
            self.at_start = self.statement_can_follow(token.kind, word, was_at_start, parentheses);
        }
    }

    fn in_expression(&self) -> bool {
        self.open.last() == Some(&Block::Expression)
    }

    /// True when this END closes the innermost block.
    fn closes(&self, cursor: &mut Cursor<'_>) -> bool {
        match self.open.last() {
            Some(Block::Expression) => true,
            Some(Block::Statements) => self.at_start,
            Some(Block::Repeat) => cursor.peek_keyword().as_str() == "REPEAT",
            None => false,
        }
    }

    /// The block that this word opens here.
    fn opens(&self, word: &str, cursor: &mut Cursor<'_>, outside_parentheses: bool, in_handler: bool) -> Option<Block> {
        if word == "CASE" {
            return Some(if self.at_start { Block::Statements } else { Block::Expression });
        }
        if self.in_expression() {
            return None;
        }
        let standing = cursor.standing();
        let next = cursor.next_token().map_or(TokenKind::End, |token| token.kind);
        cursor.return_to(standing);
        let next_word = cursor.peek_keyword();
        let in_header = self.in_header && outside_parentheses;
        let is_open = match word {
            "BEGIN" => self.at_start || in_handler || in_header,
            "LOOP" | "WHILE" => self.at_start || in_header,
            // After the name of a type no function can follow, and IF [NOT] EXISTS belongs to CREATE.
            "IF" => {
                let is_call = next == TokenKind::Byte(b'(');
                self.at_start || in_header && !is_call && !matches!(next_word.as_str(), "EXISTS" | "NOT")
            }
            "FOR" => self.at_start && !matches!(next_word.as_str(), "EACH" | "UPDATE" | "SHARE"),
            "REPEAT" => return self.at_start.then_some(Block::Repeat),
            _ => false,
        };
        is_open.then_some(Block::Statements)
    }

    /// True when a statement can begin after this token.
    fn statement_can_follow(&self, kind: TokenKind, word: &str, was_at_start: bool, parentheses: usize) -> bool {
        if self.in_expression() || parentheses > 0 {
            return false;
        }
        if self.in_header {
            // The header's last word, after which the body begins, is one of these (or the name of a type, see `opens`).
            return match kind {
                TokenKind::Byte(byte) => matches!(byte, b')' | b':'),
                TokenKind::Word => matches!(word, "ROW" | "DO" | "DETERMINISTIC" | "SQL" | "DATA" | "INVOKER" | "DEFINER"),
                TokenKind::Quoted | TokenKind::Number | TokenKind::End => false,
            };
        }
        match kind {
            TokenKind::Byte(b';' | b':') => true,
            TokenKind::Word => match word {
                "BEGIN" | "THEN" | "ELSE" | "DO" | "LOOP" | "REPEAT" => true,
                "NOT" | "ATOMIC" => was_at_start,
                _ => false,
            },
            TokenKind::Number | TokenKind::Quoted | TokenKind::Byte(_) | TokenKind::End => false,
        }
    }
}

/// True for the first word of a statement that is no block: a body of that statement alone ends the header.
fn begins_plain_statement(word: &str) -> bool {
    matches!(word, "SELECT" | "INSERT" | "UPDATE" | "DELETE" | "REPLACE" | "SET" | "CALL" | "WITH" | "TRUNCATE" | "SIGNAL")
}

/// After END: the kind of the block, which is not the beginning of another.
fn pass_closing_word(cursor: &mut Cursor<'_>) -> Result<(), Fault> {
    if matches!(cursor.peek_keyword().as_str(), "IF" | "CASE" | "LOOP" | "WHILE" | "REPEAT" | "FOR") {
        cursor.next_token()?;
    }
    Ok(())
}
