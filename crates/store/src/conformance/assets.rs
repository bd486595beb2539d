//! Promises about updates of assets.

use super::script::{append, at, mapped, single};
use super::*;
use crate::{ASSET_UPDATES_MAX, AssetFilter, AssetRow};
use backstop_core::InstanceId;
use backstop_core::event::AssetUpdate;
use jiff::Timestamp;

fn updated(instance: InstanceId, assets: &[&str]) -> Event {
    Event::AssetsUpdated { instance, try_number: 1, assets: assets.iter().map(|asset| Arc::from(*asset)).collect() }
}

fn row(seq: u64, asset: &str, run: &str, instance: InstanceId, version: u64) -> AssetRow {
    let update = AssetUpdate { asset: asset.into(), run: run.into(), instance, at: at(1000 + version) };
    AssetRow { seq, update }
}

/// Whatever runs they come from, in one order, each event's in its own; a crash keeps what was told, and numbers go on behind it.
pub async fn updates_of_assets_are_in_one_order(subject: &mut dyn Subject) {
    let store = subject.store();
    assert_eq!((store.last_asset_update().await.unwrap(), store.asset_updates(0, 10).await.unwrap()), (0, vec![]));
    make_run(&*store, &"1".into(), "x", vec![updated(single("load"), &["sales", "s3://é"])]).await;
    make_run(&*store, &"2".into(), "y", vec![Event::RunFailed]).await;
    do_append(&*store, append(&"1".into(), 2, vec![Event::RunSucceeded, updated(mapped("b", 3), &["sales"])])).await.unwrap();
    let expected = [
        row(1, "sales", "1", single("load"), 0),
        row(2, "s3://é", "1", single("load"), 0),
        row(3, "sales", "1", mapped("b", 3), 2),
    ];
    assert_eq!(store.asset_updates(0, 10).await.unwrap(), expected);
    assert_eq!(store.asset_updates(1, 1).await.unwrap(), expected[1..2]);
    assert_eq!(store.asset_updates(3, 10).await.unwrap(), []);
    drop(store);
    subject.crash().await;
    let store = subject.store();
    assert_eq!((store.last_asset_update().await.unwrap(), store.asset_updates(0, 10).await.unwrap()), (3, expected.to_vec()));
    // What is refused updates nothing.
    do_append(&*store, append(&"1".into(), 2, vec![updated(single("load"), &["sales"])])).await.unwrap_err();
    do_append(&*store, append(&"2".into(), 2, vec![updated(single("load"), &["rates"])])).await.unwrap();
    assert_eq!(store.asset_updates(3, 10).await.unwrap(), [row(4, "rates", "2", single("load"), 2)]);
    let many = vec!["many"; ASSET_UPDATES_MAX as usize + 1];
    make_run(&*store, &"3".into(), "x", vec![updated(single("load"), &many)]).await;
    assert_eq!(store.asset_updates(4, u32::MAX).await.unwrap().len(), ASSET_UPDATES_MAX as usize);
}

/// Of some assets, the newest of each, between two places.
pub async fn updates_are_found_by_asset(subject: &mut dyn Subject) {
    let store = subject.store();
    let names = ["a", "b", "a", "c", "a", "b"];
    for (number, name) in names.iter().enumerate() {
        make_run(&*store, &RunId::new(number.to_string()), "x", vec![updated(single("load"), &[name])]).await;
    }
    let find = async |assets: &[&str], places, of_each| -> Vec<u64> {
        let assets = assets.iter().map(|asset| Arc::from(*asset)).collect();
        let found = store.updates_of(&AssetFilter { assets, places, of_each }).await.unwrap();
        assert!(found.iter().all(|row| names[row.seq as usize - 1] == &*row.update.asset));
        found.iter().map(|row| row.seq).collect()
    };
    assert_eq!(find(&["a", "b"], 1..=6, 10).await, [1, 2, 3, 5, 6]);
    assert_eq!(find(&["a", "b"], 2..=5, 10).await, [2, 3, 5]);
    assert_eq!(find(&["a", "b"], 1..=6, 1).await, [5, 6]);
    assert_eq!(find(&["a", "nobody"], 1..=4, 1).await, [3]);
    assert_eq!(find(&[], 1..=6, 10).await, [0; 0]);
    assert_eq!(find(&["a"], std::ops::RangeInclusive::new(6, 5), 10).await, [0; 0]);
    assert_eq!(find(&["A", "a'--"], 0..=u64::MAX, 10).await, [0; 0]);
}

/// What waits for an asset since some place is found as before, however many runs are removed.
pub async fn updates_go_with_their_runs_but_for_the_newest(subject: &mut dyn Subject) {
    let store = subject.store();
    // By number: what the runs 0 to 5 update.
    let updates: [&[&str]; 6] = [&["a", "b", "a"], &["b"], &["a", "c"], &["a"], &["b"], &[]];
    for (number, assets) in updates.iter().enumerate() {
        let run = RunId::new(number.to_string());
        make_run(&*store, &run, "x", vec![updated(single("load"), assets), Event::RunSucceeded]).await;
    }
    let remove = async |runs: &[&str]| {
        let runs: Vec<RunId> = runs.iter().copied().map(RunId::new).collect();
        assert_eq!(store.remove_runs(&runs, Timestamp::MAX).await.unwrap(), runs);
        while store.sweep(1).await.unwrap() > 0 {}
        let left = store.asset_updates(0, 100).await.unwrap();
        left.iter().map(|row| format!("{}{} of {}", row.update.asset, row.seq, row.update.run)).collect::<Vec<_>>()
    };
    assert_eq!(remove(&["0"]).await, ["b4 of 1", "a5 of 2", "c6 of 2", "a7 of 3", "b8 of 4"]);
    // Nobody updates c again: it stays. The newest of a and of b stay until newer ones are removed.
    assert_eq!(remove(&["2", "3", "4"]).await, ["b4 of 1", "c6 of 2", "a7 of 3", "b8 of 4"]);
    assert_eq!(remove(&["1"]).await, ["c6 of 2", "a7 of 3", "b8 of 4"]);
    assert_eq!(store.last_asset_update().await.unwrap(), 8);
    make_run(&*store, &"6".into(), "x", vec![updated(single("load"), &["a", "b"]), Event::RunSucceeded]).await;
    make_run(&*store, &"7".into(), "x", vec![]).await;
    assert_eq!(remove(&["6"]).await, ["c6 of 2", "a9 of 6", "b10 of 6"]);
    make_run(&*store, &"8".into(), "x", vec![updated(single("load"), &["a"])]).await;
    assert_eq!(store.asset_updates(10, 5).await.unwrap()[0].seq, 11);
}
