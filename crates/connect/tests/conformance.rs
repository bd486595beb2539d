//! One suite that every connector passes against real servers, and what is particular to each.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod conformance {
    mod bed;
    mod mariadb;
    mod postgres;
    mod sqlite;
    mod suite;
}
