//! Updates of assets, over all runs.

use backstop_core::event::AssetUpdate;
use std::ops::RangeInclusive;
use std::sync::Arc;

/// An update of an asset, with its place among all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AssetRow {
    /// Grows, in the order in which the store was told of them, whatever clocks said; never given twice, also when updates are gone.
    pub seq: u64,
    /// What was updated by whom.
    pub update: AssetUpdate,
}

/// What is wanted of the updates of some assets.
#[derive(Clone, Debug)]
pub struct AssetFilter {
    /// Their names.
    pub assets: Vec<Arc<str>>,
    /// The first and the last place wanted.
    pub places: RangeInclusive<u64>,
    /// At most so many of each asset, the newest.
    pub of_each: u32,
}

/// Updates that one read gives at most, of each asset where they are asked for.
pub const ASSET_UPDATES_MAX: u32 = 1000;
