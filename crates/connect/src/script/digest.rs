//! The digest of what a segment runs, kept in its marker.

use crate::value::Value;
use sha2::{Digest as _, Sha256};

/// The SHA-256, in lower-case hex, of statements with their parameters and their COPY data.
///
/// Every part is framed by its length and every value by its type, so that no two different lists of calls are hashed from the
/// same bytes. The framing is part of the marker's format: changing it makes the markers of runs in flight unreadable.
pub fn digest<'a>(calls: impl Iterator<Item = (&'a str, &'a [Value], Option<&'a str>)>) -> String {
    let mut hash = Sha256::new();
    for (sql, parameters, copy_data) in calls {
        part(&mut hash, b'S', sql.as_bytes());
        part(&mut hash, b'P', &(parameters.len() as u64).to_be_bytes());
        for parameter in parameters {
            value(&mut hash, parameter);
        }
        match copy_data {
            Some(data) => part(&mut hash, b'C', data.as_bytes()),
            None => part(&mut hash, b'-', &[]),
        }
    }
    hex(&hash.finalize())
}

fn part(hash: &mut Sha256, kind: u8, bytes: &[u8]) {
    hash.update([kind]);
    hash.update((bytes.len() as u64).to_be_bytes());
    hash.update(bytes);
}

fn value(hash: &mut Sha256, value: &Value) {
    match value {
        Value::Null => part(hash, b'n', &[]),
        Value::Bool(truth) => part(hash, b'b', &[u8::from(*truth)]),
        Value::Int(number) => part(hash, b'i', &number.to_be_bytes()),
        Value::UInt(number) => part(hash, b'u', &number.to_be_bytes()),
        Value::Float(number) => part(hash, b'f', &number.to_bits().to_be_bytes()),
        Value::Decimal(text) => part(hash, b'd', text.as_bytes()),
        Value::Text(text) => part(hash, b't', text.as_bytes()),
        Value::Bytes(bytes) => part(hash, b'y', bytes),
        Value::Json(text) => part(hash, b'j', text.as_bytes()),
    }
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(calls: &[(&str, &[Value], Option<&str>)]) -> String {
        digest(calls.iter().copied())
    }

    #[test]
    fn the_format_is_frozen() {
        insta::assert_snapshot!(of(&[]), @"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        insta::assert_snapshot!(of(&[("SELECT 1", &[], None)]), @"a2cc85857fa2b5c02d62a62e04ec5e99538050ba7fe3835f323cb7b4f8ebf7c3");
        insta::assert_snapshot!(of(&[("SELECT $1", &[Value::Int(7)], None), ("COPY t FROM STDIN", &[], Some("1\n"))]), @"773d315c83fc3d595c4d2140242e0612f0b46abdb5f5a99f4c70f2f1cd152915");
    }

    #[test]
    fn what_differs_has_another_digest() {
        let one = Value::Int(1);
        let all = [
            of(&[]),
            of(&[("", &[], None)]),
            of(&[("", &[], Some(""))]),
            of(&[("ab", &[], None)]),
            of(&[("a", &[], None), ("b", &[], None)]),
            of(&[("", &[], None), ("ab", &[], None)]),
            of(&[("a", &[], Some("b"))]),
            of(&[("a", &[Value::Text("b".into())], None)]),
            of(&[("a", &[Value::Json("b".into())], None)]),
            of(&[("a", &[Value::Decimal("b".into())], None)]),
            of(&[("a", &[Value::Bytes(b"b".to_vec())], None)]),
            of(&[("a", std::slice::from_ref(&one), None)]),
            of(&[("a", &[Value::UInt(1)], None)]),
            of(&[("a", &[Value::Bool(true)], None)]),
            of(&[("a", &[Value::Null], None)]),
            of(&[("a", &[Value::Null, Value::Null], None)]),
            of(&[("a", &[Value::Float(0.0)], None)]),
            of(&[("a", &[Value::Float(-0.0)], None)]),
        ];
        let distinct: std::collections::BTreeSet<_> = all.iter().collect();
        assert_eq!(distinct.len(), all.len());
    }
}
