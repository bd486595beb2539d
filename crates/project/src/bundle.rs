//! A bundle as bytes for the store, its version, and backstop.yaml without secrets.

use crate::files::Bundle;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;

/// The first line of a stored bundle.
const MAGIC: &[u8] = b"backstop bundle 1\n";

/// Why bytes are not a bundle.
#[derive(Debug, thiserror::Error)]
#[error("the stored sources cannot be read: {0}")]
pub struct BundleError(&'static str);

impl Bundle {
    /// For the store: a line that names the format, then the root and each path and content, each after its length (8 bytes, little endian).
    pub fn to_bytes(&self) -> Vec<u8> {
        let length: usize = self.files.iter().map(|(path, content)| path.len() + content.len() + 16).sum();
        let mut bytes = Vec::with_capacity(MAGIC.len() + length + 64);
        bytes.extend_from_slice(MAGIC);
        put(&mut bytes, self.root.as_os_str().as_encoded_bytes());
        for (path, content) in &self.files {
            put(&mut bytes, path.as_bytes());
            put(&mut bytes, content);
        }
        bytes
    }

    /// From the store.
    ///
    /// # Errors
    /// When the bytes were not written by [`Bundle::to_bytes`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, BundleError> {
        let mut rest = bytes.strip_prefix(MAGIC).ok_or(BundleError("they are of another format"))?;
        let root = root_from(take(&mut rest)?);
        let mut files = BTreeMap::new();
        while !rest.is_empty() {
            let path = std::str::from_utf8(take(&mut rest)?).map_err(|_| BundleError("a path is not UTF-8"))?;
            files.insert(path.to_owned(), take(&mut rest)?.to_owned());
        }
        Ok(Self { root, files })
    }

    /// SHA-256 of the paths and contents, hex. The folder they came from is no part of it.
    pub fn version(&self) -> String {
        let mut digest = Sha256::new();
        for (path, content) in &self.files {
            for part in [path.as_bytes(), content] {
                digest.update((part.len() as u64).to_le_bytes());
                digest.update(part);
            }
        }
        let mut text = String::with_capacity(64);
        for byte in digest.finalize() {
            let _ = write!(text, "{byte:02x}");
        }
        text
    }
}

#[cfg(unix)]
fn root_from(bytes: &[u8]) -> PathBuf {
    use std::os::unix::ffi::OsStrExt;
    PathBuf::from(std::ffi::OsStr::from_bytes(bytes))
}

#[cfg(not(unix))]
fn root_from(bytes: &[u8]) -> PathBuf {
    PathBuf::from(String::from_utf8_lossy(bytes).into_owned())
}

fn put(bytes: &mut Vec<u8>, part: &[u8]) {
    bytes.extend_from_slice(&(part.len() as u64).to_le_bytes());
    bytes.extend_from_slice(part);
}

fn take<'b>(rest: &mut &'b [u8]) -> Result<&'b [u8], BundleError> {
    const CUT: BundleError = BundleError("they end too early");
    let (length, after) = rest.split_first_chunk::<8>().ok_or(CUT)?;
    let length = usize::try_from(u64::from_le_bytes(*length)).map_err(|_| CUT)?;
    if length > after.len() {
        return Err(CUT);
    }
    let (part, after) = after.split_at(length);
    *rest = after;
    Ok(part)
}
