//! Files of a web server: one, or those of a `SHA256SUMS`.
//!
//! Owns: how such a list is read, how sizes are found out.
//! Must not know: which files are wanted, where bytes go.
//! Invariant: a list names files beside or below itself only.

use std::time::Duration;

use super::Stop;
use super::choose::Listed;
use super::fetch::{Found, Way, place};
use super::hub::sha256;
use crate::domain::model::check_file_name;
use crate::outbound::Url;

/// What a list is called.
const LIST: &str = "SHA256SUMS";
/// Most bytes of a list, and how long it may take.
const LISTING: (usize, Duration) = (1 << 20, Duration::from_mins(1));

/// A file, or a list of files.
#[derive(Debug)]
pub(super) struct Web {
    pub(super) way: Way,
}

impl Web {
    /// The files.
    pub(super) async fn list(&self, most: usize) -> Result<Vec<Listed>, Stop> {
        let url = &self.way.home;
        let name = url
            .path_segments()
            .and_then(|mut path| path.next_back())
            .unwrap_or_default();
        if name != LIST {
            let found = self.way.get(url, 0).await?;
            let listed = Listed {
                bytes: size(url, &found)?,
                name: name.to_owned(),
                origin: url.to_string(),
                sha256: None,
            };
            return Ok(vec![listed]);
        }
        let found = self.way.get(url, 0).await?;
        let text = found.incoming.text(LISTING.0, LISTING.1).await;
        let text = text.map_err(|failed| Stop::later(format!("{}: {failed}", place(url))))?;
        let mut files = Vec::new();
        for (number, line) in text
            .lines()
            .enumerate()
            .filter(|(_, line)| !line.trim().is_empty())
        {
            let wrong = |why: &str| {
                let says = format!("{}, line {}: {why}", place(url), number + 1);
                Stop::over("source_broken", says)
            };
            if files.len() == most {
                return Err(Stop::over(
                    "too_many_files",
                    format!("a model has at most {most} files"),
                ));
            }
            let (digest, name) = line
                .split_once(' ')
                .ok_or_else(|| wrong("is not `<sha256>  <name>`"))?;
            let name = name.trim_start_matches([' ', '*']).trim_start_matches("./");
            let digest = sha256(digest).ok_or_else(|| wrong("begins with no SHA-256"))?;
            check_file_name(name).map_err(|error| wrong(&error.to_string()))?;
            let mut file = url.clone();
            file.set_query(None);
            match file.path_segments_mut() {
                Ok(mut path) => path.pop().extend(name.split('/')),
                Err(()) => return Err(wrong("is not below a URL with a path")),
            };
            let found = self.way.get(&file, 0).await?;
            files.push(Listed {
                bytes: size(&file, &found)?,
                name: name.to_owned(),
                origin: file.to_string(),
                sha256: Some(digest),
            });
        }
        Ok(files)
    }

    /// A file, from a byte on.
    pub(super) async fn open(&self, origin: &str, from: u64) -> Result<Found, Stop> {
        let url = Url::parse(origin).map_err(|_e| Stop::over("source_broken", "a file has no URL"))?;
        self.way.get(&url, from).await
    }
}

fn size(url: &Url, found: &Found) -> Result<u64, Stop> {
    let length = found
        .incoming
        .header("content-length")
        .and_then(|text| text.parse().ok());
    length.ok_or_else(|| {
        let says = format!(
            "{} does not say its size (Content-Length); upload the file instead",
            place(url)
        );
        Stop::over("source_broken", says)
    })
}
