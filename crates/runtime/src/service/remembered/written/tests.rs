use super::super::{Body, key};
use super::*;
use backstop_project::{Bundle, Environment, Overrides};
use backstop_store::{MemoryStore, Store};

const SHARED: &str = "SELECT 'what all of them do'";

/// A project in which each DAG has a file of its own and one that all have.
fn project(dags: &[(&str, &str)]) -> Vec<Loaded> {
    let mut files: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    let mut write = |path: String, text: &str| drop(files.insert(path, text.as_bytes().to_vec()));
    write("backstop.yaml".into(), "connections: {db: {conn_type: sqlite, database: data.db}}\n");
    write("sql/shared.sql".into(), SHARED);
    for (dag, own) in dags {
        write(format!("sql/{dag}.sql"), own);
        let tasks = format!("  shared: {{sql: sql/shared.sql}}\n  own: {{sql: sql/{dag}.sql}}\n");
        write(format!("dags/{dag}.yaml"), &format!("dag: {dag}\nconnection: db\ntasks:\n{tasks}"));
    }
    let bundle = Bundle { root: "/srv/sales".into(), files };
    let loaded = backstop_project::load_with(&bundle, &Environment::default(), &Overrides::default());
    assert!(loaded.is_valid(), "{:?}", loaded.diagnostics);
    let root = loaded.project.root.clone();
    loaded.project.dags.into_values().map(|definition| Loaded { root: root.clone(), definition }).collect()
}

fn key_of(dag: &str) -> String {
    key(std::path::Path::new("/srv/sales"), dag)
}

struct Site {
    store: MemoryStore,
    goods: BTreeMap<String, Good>,
    bytes_max: u64,
}

impl Site {
    fn new(bytes_max: u64) -> Self {
        Self { store: MemoryStore::new(), goods: BTreeMap::new(), bytes_max }
    }

    /// Writes as the service does. What is kept afterwards is whole, counted right, and nothing beside it. Gives what was left out, and how
    /// many contents were put.
    async fn write(&mut self, new: Vec<Loaded>, gone: &[&str]) -> (Vec<LeftOut>, usize) {
        let gone = gone.iter().map(|dag| key_of(dag)).collect();
        let mut writing = Writing { bytes_max: self.bytes_max, ..Writing::new(&self.goods, new, gone) };
        let (mut left_out, mut put) = (Vec::new(), 0);
        while let Some(mut write) = writing.next() {
            put += write.entries.iter().filter(|entry| entry.kind == CONTENT && entry.body.is_some()).count();
            self.store.put(write.entries, None).await.unwrap();
            write.gone.iter().for_each(|key| drop(self.goods.remove(key)));
            self.goods.extend(write.goods.into_iter().map(|good| (good.key(), good)));
            left_out.append(&mut write.left_out);
            self.is_whole().await;
        }
        assert_eq!(writing.goods, self.goods);
        let known: u64 = self.contents().await.values().sum();
        assert!(writing.bytes == known && known <= self.bytes_max, "{} are counted, {known} are there", writing.bytes);
        (left_out, put)
    }

    /// Bytes by digest, as they are in the store.
    async fn contents(&self) -> BTreeMap<String, u64> {
        let read = |(digest, body): (String, String)| {
            let body: Body = serde_json::from_str(&body).unwrap();
            (digest, body.into_bytes().len() as u64)
        };
        self.store.entries(CONTENT).await.unwrap().into_iter().map(read).collect()
    }

    async fn is_whole(&self) {
        let goods = self.store.entries(KIND).await.unwrap();
        let goods: BTreeMap<String, Good> =
            goods.into_iter().map(|(key, body)| (key, serde_json::from_str(&body).unwrap())).collect();
        assert_eq!(goods, self.goods);
        let named: BTreeMap<String, u64> =
            goods.values().flat_map(|good| good.files.values()).map(|content| (content.digest.clone(), content.bytes)).collect();
        assert_eq!(named, self.contents().await);
    }
}

#[tokio::test]
async fn what_many_dags_have_is_kept_once_and_goes_with_the_last_of_them() {
    let mut site = Site::new(BYTES_MAX);
    let many: Vec<(String, String)> = (0..100).map(|number| (format!("d{number:02}"), format!("SELECT {number}"))).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|(dag, own)| (&**dag, &**own)).collect();
    // backstop.yaml and the shared file once, two of its own of each DAG.
    assert_eq!(site.write(project(&many), &[]).await, (vec![], 202));
    assert_eq!(site.contents().await.len(), 202);
    let edited = project(&[("d00", "SELECT 'edited'")]);
    assert_eq!(site.write(edited, &[]).await, (vec![], 1), "only what differs is written");
    assert_eq!(site.contents().await.len(), 202, "and what it had is let go of");
    // It has a content now that another one has.
    assert_eq!(site.write(project(&[("d01", "SELECT 'edited'")]), &[]).await, (vec![], 0));
    let all: Vec<&str> = many.iter().map(|(dag, _)| *dag).collect();
    site.write(vec![], &all[1..]).await;
    assert_eq!(site.contents().await.len(), 4);
    site.write(project(&[("other", "SELECT 1")]), &all[..1]).await;
    assert_eq!(site.goods.keys().collect::<Vec<_>>(), [&key_of("other")]);
    assert_eq!(site.contents().await.len(), 4);
}

#[tokio::test]
async fn what_finds_no_room_is_left_out_and_said() {
    let large = |bytes: usize| format!("SELECT '{}'", "x".repeat(bytes));
    let mut site = Site::new(4_096);
    let (first, second) = (large(2_000), large(1_000));
    assert_eq!(site.write(project(&[("first", &first), ("second", &second)]), &[]).await.0, []);
    // An older version of it would not be the last good one.
    let larger = large(3_000);
    let (left_out, _) = site.write(project(&[("second", &larger)]), &[]).await;
    assert_eq!((left_out.len(), &*left_out[0].dag), (1, "second"));
    assert!(left_out[0].bytes > 5_000 && left_out[0].to_string().contains("of 4096 at most"), "{}", left_out[0]);
    assert_eq!(site.goods.keys().collect::<Vec<_>>(), [&key_of("first")]);
    // The room of what goes in the same moment is free.
    let (left_out, _) = site.write(project(&[("second", &larger)]), &["first"]).await;
    assert_eq!((left_out, site.goods.len()), (vec![], 1));
    let (left_out, _) = site.write(project(&[("second", &large(3_001))]), &[]).await;
    assert_eq!(left_out, [], "as much room as it had is free, too");
}

#[tokio::test]
async fn what_an_earlier_version_kept_is_replaced() {
    let mut site = Site::new(BYTES_MAX);
    let loaded = project(&[("d", "SELECT 1")]);
    let before = Good { files: BTreeMap::new(), version: "before".into(), ..good(&loaded[0]) };
    let kept = [(KIND, serde_json::to_string(&before).unwrap()), (FILES_BEFORE, "{\"dags/d.yaml\":\"dag: d\"}".into())];
    let kept = kept.map(|(kind, body)| entry(kind, &key_of("d"), Some(body)));
    site.store.put(kept.into(), None).await.unwrap();
    site.goods.insert(key_of("d"), before);
    site.write(loaded, &[]).await;
    assert_eq!((site.contents().await.len(), site.store.entries(FILES_BEFORE).await.unwrap()), (4, vec![]));
}
