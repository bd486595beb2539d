//! Updates of assets: by their place, by name, and those of one run; how they go with it, and how they are compared with its log.

use super::batch::{Batch, unsigned};
use super::lists::Query;
use super::reader::{Reader, instance};
use crate::log::from_microsecond;
use crate::projection;
use crate::{ASSET_UPDATES_MAX, AssetFilter, AssetRow, Error, Recorded};
use backstop_core::RunId;
use backstop_core::event::AssetUpdate;
use rusqlite::{OptionalExtension, Row, params};
use std::collections::VecDeque;
use std::sync::Arc;

const COLUMNS: &str = "SELECT seq, asset, run_id, task, map_index, at FROM asset_updates";

/// Updates of a run of whose asset there is a newer one.
pub(super) const SUPERSEDED_OF_RUN: &str = "SELECT seq FROM asset_updates AS old WHERE run = ?1 \
     AND seq < (SELECT max(seq) FROM asset_updates INDEXED BY asset_updates_of WHERE asset = old.asset) LIMIT ?2";

/// The same of runs that are gone, where this run updated the asset. There is about one for each asset.
pub(super) const SUPERSEDED_LEFT: &str = "SELECT seq FROM asset_updates AS old INDEXED BY asset_updates_of_run WHERE run IS NULL \
     AND asset IN (SELECT asset FROM asset_updates INDEXED BY asset_updates_of_run WHERE run = ?1) \
     AND seq < (SELECT max(seq) FROM asset_updates INDEXED BY asset_updates_of WHERE asset = old.asset) LIMIT ?2";

/// The newest updates of one asset between two places.
pub(super) fn of_asset_query(asset: &str, first: i64, last: i64, limit: u32) -> Query {
    let mut query = Query::new(format!("{COLUMNS} INDEXED BY asset_updates_of"));
    query.and(" WHERE asset = ?", asset.to_owned());
    query.and(" AND seq >= ?", first);
    query.and(" AND seq <= ?", last);
    query.and(" ORDER BY seq DESC LIMIT ?", limit);
    query
}

impl Reader<'_> {
    pub(super) fn last_asset_update(&self) -> Result<u64, Error> {
        // Kept by SQLite itself; it stays when the row is removed.
        let sql = "SELECT seq FROM sqlite_sequence WHERE name = 'asset_updates'";
        let last: Option<i64> = self
            .connection
            .prepare_cached(sql)
            .and_then(|mut statement| statement.query_row([], |row| row.get(0)).optional())
            .map_err(|cause| self.failed(cause))?;
        Ok(last.unwrap_or(0).unsigned_abs())
    }

    pub(super) fn asset_updates(&self, after: u64, limit: u32) -> Result<Vec<AssetRow>, Error> {
        let sql = format!("{COLUMNS} WHERE seq > ?1 ORDER BY seq LIMIT ?2");
        self.rows(&sql, params![column(after), limit.min(ASSET_UPDATES_MAX)], asset_row)
    }

    /// Those of one run, with their numbers.
    fn updates_of_run(&self, run: i64) -> Result<Vec<(i64, RunUpdate)>, Error> {
        let sql = "SELECT seq, asset, run_id, task, map_index, at, event FROM asset_updates WHERE run = ?1 ORDER BY event, seq";
        self.rows(sql, params![run], |row| {
            let found = asset_row(row)?;
            Ok((row.get(0)?, RunUpdate { event: unsigned(row, 6)?, update: found.update }))
        })
    }

    pub(super) fn updates_of(&self, filter: &AssetFilter) -> Result<Vec<AssetRow>, Error> {
        let (first, last) = (column(*filter.places.start()), column(*filter.places.end()));
        let mut found = Vec::new();
        for asset in &filter.assets {
            let query = of_asset_query(asset, first, last, filter.of_each.min(ASSET_UPDATES_MAX));
            let values: Vec<&dyn rusqlite::ToSql> = query.values.iter().map(|value| value as &dyn rusqlite::ToSql).collect();
            found.extend(self.rows(&query.sql, &values, asset_row)?);
        }
        found.sort_by_key(|row| row.seq);
        Ok(found)
    }
}

/// An update with the event that tells of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RunUpdate {
    event: u64,
    update: AssetUpdate,
}

/// What the log of a run says, in its order.
fn told(run: &RunId, events: &[Recorded]) -> VecDeque<RunUpdate> {
    let mut told = VecDeque::new();
    for Recorded { seq, at, event } in events {
        told.extend(projection::asset_updates(run, *at, event).map(|update| RunUpdate { event: *seq, update }));
    }
    told
}

/// The updates that are kept of a run and not told by its log, by their numbers, and those that it tells and are not kept.
fn difference(kept: Vec<(i64, RunUpdate)>, mut told: VecDeque<RunUpdate>) -> (Vec<(i64, RunUpdate)>, VecDeque<RunUpdate>) {
    let mut extra = kept;
    // Both are in the order of the log: where nothing is wrong, it is the first.
    extra.retain(|(_, update)| match told.iter().position(|other| other == update) {
        Some(place) => {
            told.remove(place);
            false
        }
        None => true,
    });
    (extra, told)
}

/// What is wrong with the updates that are kept of a run, where anything is.
pub(super) fn asset_difference(reader: &Reader<'_>, run: &RunId, id: i64, events: &[Recorded]) -> Result<Option<String>, Error> {
    let (extra, missing) = difference(reader.updates_of_run(id)?, told(run, events));
    let text = |found: &RunUpdate| format!("an update of asset `{}` by {}", found.update.asset, found.update.instance);
    let missing = missing.front().map(|found| format!("lists do not have {}, of which its log tells", text(found)));
    Ok(missing.or_else(|| extra.first().map(|(_, found)| format!("lists have {}, of which its log does not tell", text(found)))))
}

impl Batch<'_> {
    /// Makes the updates that are kept of a run those of its log. What is right keeps its number: it counts once. What was missing gets
    /// a new one: nobody who waits for it can have seen it.
    pub(super) fn mend_asset_updates(&self, reader: &Reader<'_>, run: &RunId, id: i64, events: &[Recorded]) -> Result<(), Error> {
        let (extra, missing) = difference(reader.updates_of_run(id)?, told(run, events));
        for (seq, _) in extra {
            self.prepare("DELETE FROM asset_updates WHERE seq = ?1")?.execute([seq]).map_err(|cause| self.broken(cause))?;
        }
        for RunUpdate { event, update } in missing {
            self.insert_asset_update(id, event, &update)?;
        }
        Ok(())
    }

    /// Deletes the updates of a run that is gone, but for the newest of each asset: a DAG that waits for it must not wait in vain. That one
    /// goes when a newer one is there and the run of that one goes. Gives how many were deleted.
    pub(super) fn sweep_asset_updates(&self, run: i64, rows_max: u32) -> Result<u32, Error> {
        let mut gone = 0;
        for some in [SUPERSEDED_LEFT, SUPERSEDED_OF_RUN] {
            let sql = format!("DELETE FROM asset_updates WHERE seq IN ({some})");
            let count = self.prepare(&sql)?.execute(params![run, rows_max - gone]).map_err(|cause| self.broken(cause))?;
            gone += u32::try_from(count).unwrap_or(u32::MAX);
        }
        if gone < rows_max {
            let sql = "UPDATE asset_updates SET run = NULL WHERE run = ?1";
            self.prepare(sql)?.execute([run]).map_err(|cause| self.broken(cause))?;
        }
        Ok(gone)
    }
}

fn asset_row(row: &Row<'_>) -> rusqlite::Result<AssetRow> {
    Ok(AssetRow {
        seq: row.get::<_, i64>(0)?.unsigned_abs(),
        update: AssetUpdate {
            asset: Arc::from(row.get::<_, String>(1)?),
            run: RunId::new(row.get::<_, String>(2)?),
            instance: instance(row, 3)?,
            at: from_microsecond(row.get(5)?),
        },
    })
}

/// No store has as many updates as do not fit.
fn column(place: u64) -> i64 {
    i64::try_from(place).unwrap_or(i64::MAX)
}
