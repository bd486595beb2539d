//! Reads the log of a try back, wherever its lines are, also while it grows.

use super::{TryFile, file_stem, hours};
use backstop_core::{InstanceId, RunId};
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

/// Bytes read in one go.
const CHUNK: u64 = 256 * 1024;

/// The tries of an instance that have a log, in order. `since` is when the run was asked for: nothing older is looked through.
pub fn log_tries(root: &Path, run: &RunId, since: Timestamp, instance: &InstanceId) -> Vec<u32> {
    let start = format!("{}.try-", file_stem(instance));
    let folder = root.join(run.as_str());
    let number = |name: &str| name.strip_prefix(&start)?.parse().ok();
    let entries = fs::read_dir(&folder).into_iter().flatten().flatten();
    let mut tries: BTreeSet<u32> =
        entries.filter_map(|entry| number(entry.file_name().to_str()?.strip_suffix(".log")?)).collect();
    if let Ok(shared) = File::open(folder.join("run.log")) {
        let lines = BufReader::new(shared).lines().map_while(Result::ok);
        tries.extend(lines.filter_map(|line| number(line.split_once('\t')?.0)));
    }
    let of_run = format!("{run}\t");
    for hour in hours::since(root, since).unwrap_or_default() {
        let Ok(file) = File::open(hour) else { continue };
        let lines = BufReader::new(file).lines().map_while(Result::ok);
        tries.extend(lines.filter_map(|line| number(line.strip_prefix(&of_run)?.split_once('\t')?.0)));
    }
    tries.into_iter().collect()
}

/// Reads the lines of one try.
#[derive(Debug)]
pub struct LogReader {
    of: TryFile,
    since: Timestamp,
    /// Bytes of the try's lines given so far.
    given: u64,
    /// How far the files are read that others share.
    read: BTreeMap<PathBuf, u64>,
}

impl LogReader {
    /// A reader at the first line. `since` is when the run was asked for: nothing older is looked through.
    pub fn new(root: &Path, run: &RunId, since: Timestamp, instance: &InstanceId, try_number: u32) -> Self {
        Self { of: TryFile::new(root, run, instance, try_number), since, given: 0, read: BTreeMap::new() }
    }

    /// Some of what is new, in whole lines; empty when there is nothing new (ask again later).
    ///
    /// # Errors
    /// When a file is there and cannot be read.
    pub fn read_new(&mut self) -> io::Result<Vec<u8>> {
        match File::open(&self.of.own) {
            Ok(mut own) => {
                own.seek(SeekFrom::Start(self.given))?;
                let lines = whole_lines(&mut own)?;
                self.given += lines.len() as u64;
                Ok(lines)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.read_shared(),
            Err(error) => Err(error),
        }
    }

    /// True when the try has said something so far.
    pub fn has_given(&self) -> bool {
        self.given > 0
    }

    /// First the hours, then the run's file: in that order they are written.
    fn read_shared(&mut self) -> io::Result<Vec<u8>> {
        let in_hour = format!("{}\t{}\t", self.of.run, self.of.name).into_bytes();
        for hour in hours::since(&self.of.root, self.since)? {
            let lines = self.read_lines(hour, &in_hour)?;
            if !lines.is_empty() {
                return Ok(lines);
            }
        }
        let in_run = format!("{}\t", self.of.name).into_bytes();
        self.read_lines(self.of.shared.clone(), &in_run)
    }

    /// The next lines of a file that begin so, without that beginning.
    fn read_lines(&mut self, path: PathBuf, start: &[u8]) -> io::Result<Vec<u8>> {
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let at = self.read.entry(path).or_default();
        file.seek(SeekFrom::Start(*at))?;
        loop {
            let chunk = whole_lines(&mut file)?;
            if chunk.is_empty() {
                return Ok(chunk);
            }
            *at += chunk.len() as u64;
            // What was read of an unfinished line is read again.
            file.seek(SeekFrom::Start(*at))?;
            let mut lines = Vec::new();
            for line in chunk.split_inclusive(|byte| *byte == b'\n') {
                if let Some(line) = line.strip_prefix(start) {
                    lines.extend_from_slice(line);
                }
            }
            if !lines.is_empty() {
                self.given += lines.len() as u64;
                return Ok(lines);
            }
        }
    }
}

/// Up to a chunk, cut behind its last line feed. A line longer than a chunk is read whole.
fn whole_lines(file: &mut File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    loop {
        let read = file.take(CHUNK).read_to_end(&mut bytes)?;
        if let Some(end) = bytes.iter().rposition(|byte| *byte == b'\n') {
            bytes.truncate(end + 1);
            return Ok(bytes);
        }
        if read == 0 {
            return Ok(Vec::new());
        }
    }
}
