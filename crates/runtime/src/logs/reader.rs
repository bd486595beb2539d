//! Reads the log of a try back, wherever its lines are, also while it grows.

use super::{TryFile, file_stem};
use backstop_core::{InstanceId, RunId};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom};
use std::path::Path;

/// Bytes read in one go.
const CHUNK: u64 = 256 * 1024;

/// The tries of an instance that have a log, in order.
pub fn log_tries(root: &Path, run: &RunId, instance: &InstanceId) -> Vec<u32> {
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
    tries.into_iter().collect()
}

/// Reads the lines of one try.
#[derive(Debug)]
pub struct LogReader {
    of: TryFile,
    /// Bytes of the try's lines given so far.
    given: u64,
    /// How far the run's file is read.
    shared_at: u64,
}

impl LogReader {
    /// A reader at the first line.
    pub fn new(root: &Path, run: &RunId, instance: &InstanceId, try_number: u32) -> Self {
        Self { of: TryFile::new(root, run, instance, try_number), given: 0, shared_at: 0 }
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

    fn read_shared(&mut self) -> io::Result<Vec<u8>> {
        let mut shared = match File::open(&self.of.shared) {
            Ok(shared) => shared,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        shared.seek(SeekFrom::Start(self.shared_at))?;
        let start = format!("{}\t", self.of.name).into_bytes();
        loop {
            let chunk = whole_lines(&mut shared)?;
            if chunk.is_empty() {
                return Ok(chunk);
            }
            self.shared_at += chunk.len() as u64;
            // What was read of an unfinished line is read again.
            shared.seek(SeekFrom::Start(self.shared_at))?;
            let mut lines = Vec::new();
            for line in chunk.split_inclusive(|byte| *byte == b'\n') {
                if let Some(line) = line.strip_prefix(start.as_slice()) {
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
