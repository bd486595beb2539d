//! Updates of assets, as the store on disk gives them.

use super::Kept;
use crate::projection;
use crate::{ASSET_UPDATES_MAX, AssetFilter, AssetRow, Recorded};
use backstop_core::RunId;
use std::collections::HashMap;
use std::sync::Arc;

impl Kept {
    /// Takes in what an event says of assets.
    pub(super) fn project_assets(&mut self, run: &RunId, recorded: &Recorded) {
        for update in projection::asset_updates(run, recorded.at, &recorded.event) {
            self.last_asset_update += 1;
            self.asset_updates.push(AssetRow { seq: self.last_asset_update, update });
        }
    }

    /// Those of runs that are gone, but for the newest of each asset.
    pub(super) fn remove_asset_updates(&mut self) {
        let newest: HashMap<Arc<str>, u64> = self.asset_updates.iter().map(|row| (row.update.asset.clone(), row.seq)).collect();
        let places = &self.places;
        self.asset_updates.retain(|row| places.contains_key(&row.update.run) || newest.get(&row.update.asset) == Some(&row.seq));
    }

    pub(super) fn asset_updates(&self, after: u64, limit: u32) -> Vec<AssetRow> {
        let behind = self.asset_updates.iter().filter(|row| row.seq > after);
        behind.take(limit.min(ASSET_UPDATES_MAX) as usize).cloned().collect()
    }

    pub(super) fn updates_of(&self, filter: &AssetFilter) -> Vec<AssetRow> {
        let each = filter.of_each.min(ASSET_UPDATES_MAX) as usize;
        let mut found: Vec<AssetRow> = filter
            .assets
            .iter()
            .flat_map(|asset| {
                let newest_first = self.asset_updates.iter().rev();
                newest_first.filter(|row| row.update.asset == *asset && filter.places.contains(&row.seq)).take(each)
            })
            .cloned()
            .collect();
        found.sort_by_key(|row| row.seq);
        found
    }
}
