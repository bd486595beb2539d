//! A request's address as errors and logs may show it: enough to find it, and nothing that lets anybody in.
//!
//! The redactor masks the secrets it knows; addresses carry others. So the user's password, every value of the query and the fragment are
//! masked, whatever they are called, and so are parts of the path that look like tokens (web hooks have theirs there).

use reqwest::Url;

/// Letters and digits in a row, mixed, from which on a part of a path is taken for a token.
const TOKEN_CHARS_MIN: usize = 12;
/// From this length on a part of a path is taken for a token whatever it consists of.
const PART_CHARS_MAX: usize = 40;
/// Characters of an address that are shown.
const SHOWN_CHARS_MAX: usize = 300;

/// `POST https://***@api.example.org/pay?day=***`.
pub(super) fn shown(method: &str, url: &Url) -> String {
    let user = if url.username().is_empty() && url.password().is_none() { "" } else { "***@" };
    let host = url.host_str().unwrap_or_default();
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    let path: Vec<&str> = url.path().split('/').map(|part| if is_token(part) { "***" } else { part }).collect();
    let query = url.query().map(masked_query).unwrap_or_default();
    let text = format!("{method} {}://{user}{host}{port}{}{query}", url.scheme(), path.join("/"));
    if text.chars().count() <= SHOWN_CHARS_MAX {
        return text;
    }
    text.chars().take(SHOWN_CHARS_MAX - 1).chain(['…']).collect()
}

/// Names stay, values go. A query without `=` may be a token as a whole.
fn masked_query(query: &str) -> String {
    let masked: Vec<String> = query
        .split('&')
        .map(|pair| match pair.split_once('=') {
            Some((name, _)) if !is_token(name) => format!("{name}=***"),
            Some(_) | None => "***".to_owned(),
        })
        .collect();
    format!("?{}", masked.join("&"))
}

fn is_token(part: &str) -> bool {
    let is_mixed = |run: &str| {
        run.len() >= TOKEN_CHARS_MIN && run.bytes().any(|b| b.is_ascii_digit()) && run.bytes().any(|b| b.is_ascii_alphabetic())
    };
    part.len() >= PART_CHARS_MAX || part.split(|c: char| !c.is_ascii_alphanumeric()).any(is_mixed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(url: &str) -> String {
        shown("GET", &url.parse().unwrap())
    }

    #[test]
    fn an_address_is_shown_without_what_lets_anybody_in() {
        assert_eq!(told("http://127.0.0.1:8080/pay"), "GET http://127.0.0.1:8080/pay");
        assert_eq!(told("https://me:hunter22@api.example.org/v1/rates"), "GET https://***@api.example.org/v1/rates");
        assert_eq!(told("https://h/r?day=2025-05-01&sig=abc&flag#frag"), "GET https://h/r?day=***&sig=***&***");
        assert_eq!(
            told("https://hooks.slack.com/services/T000/B000/Ab3Df5Gh7Jk9Lm1N"),
            "GET https://hooks.slack.com/services/T000/B000/***"
        );
        assert_eq!(told("https://h/bot123456:ABC-DEF1234ghIkl-zyx57W2/send"), "GET https://h/***/send");
        assert_eq!(
            told("https://h/reports/2025-05-01/daily_sales_report"),
            "GET https://h/reports/2025-05-01/daily_sales_report"
        );
    }

    #[test]
    fn a_long_address_is_cut() {
        let parts = "part/".repeat(200);
        assert_eq!(told(&format!("https://h/{parts}")).chars().count(), SHOWN_CHARS_MAX);
    }
}
