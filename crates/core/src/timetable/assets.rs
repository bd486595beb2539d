//! Runs after data: which assets must have been updated.

use std::collections::BTreeSet;
use std::sync::Arc;

/// Which assets must have been updated since the DAG's last run by assets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AssetExpr {
    /// This one.
    Asset(Arc<str>),
    /// One of them.
    Any(Vec<AssetExpr>),
    /// All of them.
    All(Vec<AssetExpr>),
}

impl AssetExpr {
    /// Whether the updates suffice. Nothing is not enough: an empty `All` is never met, as a DAG that ran for no reason would run without end.
    pub fn is_met(&self, updated: &BTreeSet<&str>) -> bool {
        match self {
            Self::Asset(name) => updated.contains(&**name),
            Self::Any(several) => several.iter().any(|one| one.is_met(updated)),
            Self::All(several) => !several.is_empty() && several.iter().all(|one| one.is_met(updated)),
        }
    }

    /// The names of all assets in it.
    pub fn names(&self) -> BTreeSet<&str> {
        let mut names = BTreeSet::new();
        self.collect(&mut names);
        names
    }

    fn collect<'a>(&'a self, names: &mut BTreeSet<&'a str>) {
        match self {
            Self::Asset(name) => {
                names.insert(name);
            }
            Self::Any(several) | Self::All(several) => several.iter().for_each(|one| one.collect(names)),
        }
    }

    /// What is still missing: names whose update could help. Empty when it is met, and when nothing can.
    pub fn missing<'a>(&'a self, updated: &BTreeSet<&str>) -> BTreeSet<&'a str> {
        if self.is_met(updated) {
            return BTreeSet::new();
        }
        match self {
            Self::Asset(name) => BTreeSet::from([&**name]),
            Self::Any(several) | Self::All(several) => several.iter().flat_map(|one| one.missing(updated)).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::AssetExpr::{self, All, Any, Asset};
    use std::collections::BTreeSet;

    fn asset(name: &str) -> AssetExpr {
        Asset(name.into())
    }

    #[test]
    fn nested_expressions_are_met_by_what_they_say() {
        let sales_and_a_rate = All(vec![asset("sales"), Any(vec![asset("ecb"), asset("fed")])]);
        for (updated, met, missing) in [
            (&[][..], false, &["ecb", "fed", "sales"][..]),
            (&["sales"], false, &["ecb", "fed"]),
            (&["ecb", "fed", "other"], false, &["sales"]),
            (&["fed", "sales"], true, &[]),
        ] {
            let updated: BTreeSet<&str> = updated.iter().copied().collect();
            assert_eq!(sales_and_a_rate.is_met(&updated), met, "{updated:?}");
            assert_eq!(sales_and_a_rate.missing(&updated), missing.iter().copied().collect(), "{updated:?}");
        }
        assert_eq!(sales_and_a_rate.names(), BTreeSet::from(["ecb", "fed", "sales"]));
    }

    #[test]
    fn nothing_is_not_enough() {
        for empty in [Any(vec![]), All(vec![]), All(vec![All(vec![])])] {
            assert!(!empty.is_met(&BTreeSet::from(["sales"])), "{empty:?}");
        }
    }
}
