//! Pages: every list is told a piece at a time.
//!
//! A list over runs, which may be long, is read from the store a page at a time. What is in memory anyway (DAGs, settings, ...) is cut here.

use crate::Problem;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// Rows of a page, where the request does not say.
const PAGE: u32 = 50;
/// Rows of a page at most.
///
/// The largest rows are runs and backfills, with parameters of at most 64 KiB each (`PARAMS_BYTES_MAX`). A page of runs ends at
/// [`PAGE_BYTES_MAX`] for that. All other rows have texts of a few KiB at most: a name of 256 characters, a reason of 4 KiB, a failure.
const PAGE_MAX: u32 = 1000;
/// Bytes of a page of runs, by their parameters: what a single request may take, within a thousand rows of 64 KiB that the store reads.
pub(super) const PAGE_BYTES_MAX: usize = 8 * 1024 * 1024;

/// A page of a list.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Page<T> {
    /// The rows.
    pub(super) items: Vec<T>,
    /// The cursor of the next page; null behind the last row.
    #[schema(required)]
    pub(super) next: Option<String>,
}

/// How many rows a request wants.
pub(super) fn rows(limit: Option<u32>) -> Result<u32, Problem> {
    match limit {
        None => Ok(PAGE),
        Some(limit @ 1..=PAGE_MAX) => Ok(limit),
        Some(limit) => Err(Problem::bad_request(format!("`limit` is {limit}, and must be from 1 to {PAGE_MAX}"))),
    }
}

/// A cursor that no list gave.
pub(super) fn no_place(field: &str) -> Problem {
    Problem::bad_request(format!("`{field}` is not a place in this list: take it from `next`"))
}

/// The key of what several projects may have one of, by name and then by project. No name has a `!`, which comes before all that names have.
pub(super) fn of_project(name: &str, project: Option<&str>) -> String {
    project.map_or_else(|| name.to_owned(), |project| format!("{name}!{project}"))
}

/// `KEY~DIGEST`: where a list goes on, and that it is a list that said so.
pub(super) fn cursor_of(key: &str) -> String {
    // FNV-1a: against mistakes, not against malice.
    let digest = key.bytes().fold(0x811c_9dc5_u32, |digest, byte| (digest ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    format!("{key}~{digest:08x}")
}

/// The key of a cursor in `after`.
///
/// # Errors
/// Of what [`cursor_of`] did not make.
pub(super) fn key_of(cursor: &str) -> Result<&str, Problem> {
    let key = cursor.rsplit_once('~').map(|(key, _)| key).filter(|key| cursor_of(key) == cursor);
    key.ok_or_else(|| no_place("after"))
}

/// Which page of a list is wanted.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Paging {
    /// The cursor, from `next`.
    pub(super) after: Option<String>,
    /// Rows of the page; 50 by default.
    #[param(minimum = 1, maximum = 1000)]
    pub(super) limit: Option<u32>,
}

impl Paging {
    /// A page of a list whose rows have unique keys, in the order of these keys. The row of a cursor may be gone by now: a cursor is told
    /// from a text that no list gave by its digest.
    pub(super) fn by_key<T>(&self, all: impl IntoIterator<Item = T>, key: impl Fn(&T) -> String) -> Result<Page<T>, Problem> {
        let limit = rows(self.limit)? as usize;
        let after = self.after.as_deref().map(key_of).transpose()?;
        let keyed = all.into_iter().map(|row| (key(&row), row));
        let mut behind: Vec<(String, T)> = keyed.filter(|(key, _)| after.is_none_or(|after| key.as_str() > after)).collect();
        behind.sort_by(|(one, _), (other, _)| one.cmp(other));
        let next = (behind.len() > limit).then(|| cursor_of(&behind[limit - 1].0));
        behind.truncate(limit);
        Ok(Page { items: behind.into_iter().map(|(_, row)| row).collect(), next })
    }

    /// A page of a list in its own order, whose rows have unique keys; that of the cursor must still be there.
    pub(super) fn by_place<T>(&self, all: Vec<T>, key: impl Fn(&T) -> String) -> Result<Page<T>, Problem> {
        let limit = rows(self.limit)? as usize;
        let from = match &self.after {
            None => 0,
            Some(after) => 1 + all.iter().position(|row| key(row) == *after).ok_or_else(|| no_place("after"))?,
        };
        let is_last = all.len() <= from + limit;
        let items: Vec<T> = all.into_iter().skip(from).take(limit).collect();
        let next = items.last().filter(|_| !is_last).map(key);
        Ok(Page { items, next })
    }

    /// A page of a list whose rows have nothing to tell them by but their number.
    pub(super) fn by_number<T>(&self, all: impl IntoIterator<Item = T>) -> Result<Page<T>, Problem> {
        let limit = rows(self.limit)? as usize;
        let from: usize = match &self.after {
            None => 0,
            Some(after) => key_of(after)?.parse().map_err(|_| no_place("after"))?,
        };
        let mut left = all.into_iter().skip(from);
        let items: Vec<T> = left.by_ref().take(limit).collect();
        let next = left.next().map(|_| cursor_of(&from.saturating_add(limit).to_string()));
        Ok(Page { items, next })
    }
}

impl<T> Page<T> {
    /// The same, of other rows.
    pub(super) fn map<U>(self, change: impl FnMut(T) -> U) -> Page<U> {
        Page { items: self.items.into_iter().map(change).collect(), next: self.next }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(pages: impl Fn(&Paging) -> Page<u32>, limit: u32) -> Vec<Vec<u32>> {
        let mut wanted = Paging { after: None, limit: Some(limit) };
        let mut told = Vec::new();
        loop {
            let page = pages(&wanted);
            told.push(page.items);
            match page.next {
                Some(next) => wanted.after = Some(next),
                None => return told,
            }
        }
    }

    #[test]
    fn pages_meet_and_end() {
        let key = |row: &u32| row.to_string();
        for limit in [1, 2, 3, 4, 1000] {
            let expected = |rows: [u32; 4]| rows.chunks(limit as usize).map(<[u32]>::to_vec).collect::<Vec<_>>();
            assert_eq!(told(|wanted| wanted.by_key([2, 3, 1, 4], key).unwrap(), limit), expected([1, 2, 3, 4]));
            assert_eq!(told(|wanted| wanted.by_place(vec![2, 3, 1, 4], key).unwrap(), limit), expected([2, 3, 1, 4]));
            assert_eq!(told(|wanted| wanted.by_number([2, 3, 1, 4]).unwrap(), limit), expected([2, 3, 1, 4]));
        }
        let behind = |after: &str| Paging { after: Some(after.to_owned()), limit: None };
        assert_eq!(behind(&cursor_of("2")).by_key([1, 3], key).unwrap().items, [3], "the row of the cursor is gone");
        for no_cursor in ["2", "2~", "zzz", "2~00000000", ""] {
            assert!(behind(no_cursor).by_key([1, 3], key).is_err(), "{no_cursor}");
        }
        assert!(behind("2").by_place(vec![1, 3], key).is_err());
        assert_eq!(behind(&cursor_of("7")).by_number([1, 3]).unwrap().items, [0; 0]);
        assert!(behind("x").by_number([1, 3]).is_err() && behind("7").by_number([1, 3]).is_err());
        for limit in [0, 1001] {
            assert!(Paging { after: None, limit: Some(limit) }.by_number([1]).is_err());
        }
    }
}
